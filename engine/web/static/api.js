// Requests to the API. An error has the HTTP status and the sentence of the server.

import { hear } from "./clock.js";

const SECONDS_MAX = 10;

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** A path below /api/v1 from parts that are encoded, and a query. */
export function url(parts, query = {}) {
  const path = parts.map((part) => encodeURIComponent(part)).join("/");
  const wanted = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const text = new URLSearchParams(wanted).toString();
  return `/api/v1/${path}${text ? `?${text}` : ""}`;
}

/** The response to a GET. Throws ApiError; status 0 means that nobody answered. */
export async function get(address, options = {}) {
  const signals = [AbortSignal.timeout((options.seconds ?? SECONDS_MAX) * 1000)];
  if (options.signal) signals.push(options.signal);
  let response;
  try {
    response = await fetch(address, { cache: options.cache ?? "no-store", signal: options.stream ? options.signal : AbortSignal.any(signals) });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "the server does not answer");
  }
  hear(response);
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.hash)}`);
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new ApiError(response.status, problem.detail ?? response.statusText);
  }
  return response;
}

export async function json(parts, query = {}, options = {}) {
  return (await get(url(parts, query), options)).json();
}
