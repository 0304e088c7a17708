export { PortalController } from './portal.controller.ts';
export { PortalModule, type PortalParts } from './portal.module.ts';
