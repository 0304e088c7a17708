export * from './auth-service.ts';
export * from './events.ts';
export * from './node-service.ts';
export * from './session.ts';
export * from './sessions.ts';
export * from './settings.ts';
export * from './upstream.ts';
export * from './wire.ts';
