"""awsim: an AWS for rehearsing patch campaigns, reached over HTTP only.

An overlay in front of moto's server. What moto has stays moto's; what patching needs and moto lacks is answered here, from a
world of hosts that have an OS, missing packages, an agent that can be late or lost, and reboots that take their time.

Where to look:
    wire.py         the only contact with moto.core: route, parse, serialize, fall back
    estate.py       the only contact with moto's state: instances, Auto Scaling groups, baselines, documents, buckets
    registry.py     how an operation is added (start there)
    clock.py, agenda.py   virtual time, and what will happen at which moment
    world_file.py, catalogue/   what a world is made of;  world.py, host.py   the world while it runs
    patching.py, baselines.py, runcommand.py, shell.py   what a command does to a host
    faults.py, journal.py, control.py   what goes wrong, what really happened, and `/_awsim/*`
    services/       one module a topic: the operations themselves
"""
