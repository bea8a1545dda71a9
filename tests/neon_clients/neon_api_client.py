"""A project's life by neon-api, which refuses an answer that lacks a field."""

import os
import time

from neon_api import NeonAPI

neon = NeonAPI(os.environ["KEY"], base_url=os.environ["API"] + "/")

assert neon.me().id == "offshoot"
key = neon.api_key_create(key_name="ci")
assert any(known.name == "ci" for known in neon.api_keys())
assert neon.api_key_revoke(key.id).revoked

project = neon.project_create(project={"name": "py"}).project.id
assert [one.id for one in neon.projects().projects] == [project]
assert neon.project_update(project, project={"name": "py2"}).project.name == "py2"
assert neon.project(project).project.name == "py2"

branch = neon.branches(project).branches[0].id
assert neon.branch(project, branch).branch.default
endpoint = neon.endpoints(project).endpoints[0].id


def finished(operations):
    for operation in operations:
        status = None
        while status != "finished":
            status = neon.operation(project, operation.id).operation.status.value
            assert status in ("scheduling", "running", "finished"), status
            time.sleep(0.1)


finished(neon.endpoint_start(project, endpoint).operations)
assert neon.endpoint(project, endpoint).endpoint.current_state.value == "active"

finished(neon.role_create(project, branch, "bob").operations)
assert neon.role(project, branch, "bob").role.name == "bob"
first = neon.role_password_reveal(project, branch, "bob").password
finished(neon.role_password_reset(project, branch, "bob").operations)
assert neon.role_password_reveal(project, branch, "bob").password != first
neon.database_create(project, branch, database={"name": "shop", "owner_name": "bob"})
neon.database_update(project, branch, "shop", database={"name": "shop2"})
assert neon.database(project, branch, "shop2").database.owner_name == "bob"
assert len(neon.databases(project, branch).databases) == 2
assert "bob:" in neon.connection_uri(project, "shop2", "bob").uri
neon.database_delete(project, branch, "shop2")
neon.role_delete(project, branch, "bob")
assert [role.name for role in neon.roles(project, branch).roles] == ["app"]

other = neon.branch_create(project, branch={"name": "try"}, endpoints=[{"type": "read_write"}])
finished(other.operations)
other = other.branch.id
neon.branch_update(project, other, branch={"name": "tried"})
neon.branch_set_as_primary(project, other)
neon.branch_set_as_primary(project, branch)
neon.branch_delete(project, other)

neon.endpoint_update(project, endpoint, endpoint={"suspend_timeout_seconds": 60})
finished(neon.endpoint_suspend(project, endpoint).operations)
neon.endpoint_delete(project, endpoint)
made = neon.endpoint_create(project, endpoint={"branch_id": branch, "type": "read_write"})
assert made.endpoint.suspend_timeout_seconds == 0
assert len(neon.operations(project).operations) > 5
neon.project_delete(project)
assert neon.projects().projects == []
print("done")
