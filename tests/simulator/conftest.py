import ssl
import threading

import pytest
import trustme

from holystream.simulator import Simulator


@pytest.fixture
def simulate():
    """Make simulators that are closed at the end, and leave no thread behind."""
    before = set(threading.enumerate())
    made = []

    def make(*args, **options):
        made.append(Simulator(*args, **options))
        return made[-1]

    yield make
    for sim in made:
        sim.close()
    assert set(threading.enumerate()) <= before


@pytest.fixture
def sim(simulate):
    return simulate()


@pytest.fixture(scope="session")
def tls_contexts():
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client
