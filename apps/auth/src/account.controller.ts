import { Controller, Inject } from '@nestjs/common';
import { GrpcMethod, Payload } from '@nestjs/microservices';
import type { Account, Accounts, ExplainPolicy } from '@sallyport/cluster';

/** Token of the parts that the controller stands on. */
export const ACCOUNT_PARTS = Symbol('account parts');

export interface AccountParts {
  accounts: Accounts;
  explain: ExplainPolicy;
}

/** proto/account.proto: for the admin services of tunnel nodes. */
@Controller()
export class AccountController {
  readonly #parts: AccountParts;

  constructor(@Inject(ACCOUNT_PARTS) parts: AccountParts) {
    this.#parts = parts;
  }

  @GrpcMethod('AccountService', 'ListAccounts')
  async listAccounts(): Promise<{ accounts: Account[] }> {
    const accounts = await this.#parts.accounts.list();
    return { accounts: accounts.map(({ name, groups, locked }) => ({ name, groups: [...groups], locked })) };
  }

  @GrpcMethod('AccountService', 'LockAccount')
  async lockAccount(@Payload() { name }: { name: string }): Promise<{ problem: string }> {
    try {
      await this.#parts.accounts.apply({ verb: 'lock', name });
      return { problem: '' };
    } catch (error) {
      return { problem: error instanceof Error ? error.message : String(error) };
    }
  }

  @GrpcMethod('AccountService', 'ExplainPolicy')
  explainPolicy(@Payload() { user, profile }: { user: string; profile: string }): Promise<object> {
    return this.#parts.explain(user, profile);
  }
}
