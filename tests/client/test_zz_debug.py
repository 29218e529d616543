from tests.client.test_consumer import *
def test_x(make, tenant, process):
    declared(make, tenant, attempts=3, dead_letter=DEAD)
    events = tenant.events(6)
    tenant.publish(*events)
    for _ in range(3):
        p=process("poison"); print(p.wait(20), p.stdout.read().split(), tenant.waiting(), tenant.held(), tenant.waiting(DEAD))
        time.sleep(.5); print(tenant.waiting(), tenant.held(), tenant.waiting(DEAD))
    seen = Seen()
    with running(c:=make(seen, queue=QUEUE, attempts=3, dead_letter=DEAD)):
        time.sleep(3)
        print(c.counts, tenant.waiting(), tenant.held(), tenant.waiting(DEAD), seen.numbers)
    print([json.loads(b)["sequence"] for b in tenant.take_all()])
    assert 0
