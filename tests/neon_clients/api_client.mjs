// A project's life by @neondatabase/api-client, which polls operations until they end.
import { createApiClient } from '@neondatabase/api-client';
import assert from 'node:assert';

const api = createApiClient({ apiKey: process.env.KEY, baseURL: process.env.API });

async function finished(project, operations) {
  for (const { id } of operations) {
    for (;;) {
      const { operation } = (await api.getProjectOperation(project, id)).data;
      if (operation.status === 'finished') break;
      assert(['scheduling', 'running'].includes(operation.status), JSON.stringify(operation));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

const made = (await api.createProject({ project: { name: 'js', pg_version: 15 } })).data;
const project = made.project.id;
await finished(project, made.operations);
const listed = (await api.listProjects({ search: 'js' })).data;
assert.deepEqual(listed.projects.map(({ id }) => id), [project]);

const branch = (await api.createProjectBranch(project, {
  branch: { name: 'try' },
  endpoints: [{ type: 'read_write' }],
})).data;
await finished(project, branch.operations);
assert.equal(branch.branch.parent_id, made.branch.id);
const endpoint = branch.endpoints[0].id;
await finished(project, (await api.startProjectEndpoint(project, endpoint)).data.operations);
const shown = (await api.getProjectEndpoint(project, endpoint)).data.endpoint;
assert.equal(shown.current_state, 'active');

const reader = (await api.createProjectEndpoint(project, {
  endpoint: { branch_id: branch.branch.id, type: 'read_only' },
})).data;
await finished(project, reader.operations);
assert.equal(reader.endpoint.type, 'read_only');
await finished(project, (await api.startProjectEndpoint(project, reader.endpoint.id)).data.operations);
const followed = (await api.getProjectEndpoint(project, reader.endpoint.id)).data.endpoint;
assert.equal(followed.current_state, 'active');
const { endpoints } = (await api.listProjectBranchEndpoints(project, branch.branch.id)).data;
assert.deepEqual(endpoints.map(({ type }) => type), ['read_write', 'read_only']);
await finished(project, (await api.deleteProjectEndpoint(project, reader.endpoint.id)).data.operations);

const role = (await api.createProjectBranchRole(project, branch.branch.id, { role: { name: 'bob' } }));
await finished(project, role.data.operations);
const revealed = await api.getProjectBranchRolePassword(project, branch.branch.id, 'bob');
assert.equal(revealed.data.password, role.data.role.password);
await finished(project, (await api.restartProjectEndpoint(project, endpoint)).data.operations);
await finished(project, (await api.suspendProjectEndpoint(project, endpoint)).data.operations);

const wrong = await api.getProject('none').catch((error) => error.response);
assert.equal(wrong.status, 404);
assert(wrong.data.code && wrong.data.message && wrong.data.request_id);
await api.deleteProject(project);
assert.equal((await api.listProjects({})).data.projects.length, 0);
console.log('done');
