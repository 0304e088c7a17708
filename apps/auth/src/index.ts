export { AuthController, type AuthParts } from './auth.controller.ts';
export { AuthModule, checkUsers, openAuth, type AuthOptions, type OpenAuth } from './auth.module.ts';
export { Directory, hashed } from './directory.ts';
export { LoginFlow, type LoginFlowParts } from './login-flow.ts';
export { MemoryLogins, type Logins } from './logins.ts';
export { RedisLogins } from './logins.redis.ts';
export type { Answers, Method, MethodContext, MethodResult } from './method.ts';
export { groupNameProblem, MAX_NAME_LENGTH, userNameProblem } from './names.ts';
export {
  DEFAULT_RECIPE,
  hashPassword,
  MAX_PASSWORD_LENGTH,
  passwordProblem,
  Passwords,
  type HashRecipe,
} from './passwords.ts';
export { mayEnter, Policies, resolvePolicy, type Resolved } from './policy.ts';
export {
  changeUsersFile,
  parseUsers,
  readUsers,
  UserChangeRefused,
  UsersFileError,
  type UserRecord,
} from './users-file.ts';
