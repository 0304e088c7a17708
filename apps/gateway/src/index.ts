export { NodeLife } from './node-life.ts';
export { asserting } from './roles/asserting.ts';
