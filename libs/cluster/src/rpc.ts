/**
 * Injection tokens of the services as their users see them. What stands behind a token is wired by the program: the
 * service itself when both run in one process, a client of its gRPC contract otherwise.
 */
export const AUTH_SERVICE = Symbol('AuthService');
export const CATALOG_SERVICE = Symbol('CatalogService');
