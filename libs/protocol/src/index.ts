export * from './client.ts';
export * from './errors.ts';
export * from './grant.ts';
export * from './reasons.ts';
