/** What the model of test/model stands on. */
export { Isolation } from './isolation.ts';
export { NodeLife } from './node-life.ts';
export { Peers } from './peers.ts';
export { Releases } from './releases.ts';
export { asserting } from './roles/asserting.ts';
