"""The certificates of a cluster: one key for each role, and a name that only the scheduler bears."""

from __future__ import annotations

import pickle
import socket
import ssl
import threading

import pytest

from likewise.cluster.certificates import SCHEDULER_NAME, ClusterSecurity, make_security


def shake_hands(security: ClusterSecurity, server: ssl.SSLContext) -> str:
    """What becomes of a client's TLS connection to a server with the context `server`: "" or the error."""
    arguments = security.get_connection_args("client")
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as stream:
                stream.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with arguments["ssl_context"].wrap_socket(ours, server_hostname=arguments.get("server_hostname")) as stream:
            stream.send(b"x")
        return ""
    except ssl.SSLError as error:
        return str(error)
    finally:
        ours.close()
        thread.join(10)


def test_every_role_has_a_key_of_its_own() -> None:
    """No two roles share a key, the authority's own key is nowhere, and nothing is shown when printed."""
    security = make_security()
    keys = {security.tls_scheduler_key, security.tls_worker_key, security.tls_client_key}
    assert len(keys) == 3 and all("PRIVATE KEY" in key for key in keys)
    assert "PRIVATE KEY" not in security.tls_ca_file + security.tls_worker_cert
    assert "BEGIN" not in repr(security) and "BEGIN" not in security._repr_html_()


@pytest.mark.parametrize("check_name", [False, True])
def test_scheduler_is_known_by_its_name_under_any_address(check_name: bool) -> None:
    """A client accepts the scheduler's certificate, whatever the address; a worker's only if it checks no name."""
    security = make_security(check_name=check_name)
    assert shake_hands(security, security.get_listen_args("scheduler")["ssl_context"]) == ""
    refused = shake_hands(security, security.get_listen_args("worker")["ssl_context"])
    assert (SCHEDULER_NAME in refused or "Hostname mismatch" in refused) if check_name else refused == ""


def test_another_clusters_certificates_count_for_nothing() -> None:
    """The scheduler of another cluster is refused."""
    other = make_security().get_listen_args("scheduler")["ssl_context"]
    assert "CERTIFICATE_VERIFY_FAILED" in shake_hands(make_security(), other)


def test_a_copy_checks_as_the_original() -> None:
    """Pickling keeps the keys and the check of the name."""
    security = make_security(check_name=True)
    copy = pickle.loads(pickle.dumps(security))
    assert copy.check_name and copy.tls_client_key == security.tls_client_key
