import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { StartError } from '@sallyport/chassis';
import { accountRequest, isClusterText, parseSettings } from '@sallyport/cluster';
import { readFile } from 'node:fs/promises';
import type { Account, AccountOrder } from '../admin/ports.ts';
import { AdminClient, socketProblem } from './admin-client.ts';

/** The users, wherever they are reached. Rejects with a StartError that says what was wrong. */
export interface ReachedAccounts {
  list(): Promise<readonly Account[]>;
  apply(order: AccountOrder): Promise<void>;
}

/**
 * Through the gateway when one answers, so that a change counts at once and ends sessions; else the users-file itself. Not
 * in a cluster: there a change is a record that all replicas of auth hear of, and the file is only what they began with.
 * @param config a configuration named by the operator: then always its users-file (a running gateway notices).
 */
export async function accountsOf(socket: string, config: string | undefined): Promise<ReachedAccounts> {
  if (config === undefined && (await socketProblem(socket)) === undefined) return throughGateway(socket);
  return inFile(config === undefined ? await fileBeside(socket) : await usersFileOf(config, ASK_AUTH));
}

function throughGateway(socket: string): ReachedAccounts {
  const ask = async <T>(work: (client: AdminClient) => Promise<T>): Promise<T> => {
    const client = await AdminClient.open(socket);
    try {
      return await work(client);
    } finally {
      client.close();
    }
  };
  return {
    list: () => ask(async (client) => (await client.listAccounts()).accounts),
    apply: (order) =>
      ask(async (client) => {
        const { problem } = await client.changeAccount(accountRequest(order));
        if (problem) throw new StartError(problem);
      }),
  };
}

function inFile(file: string): ReachedAccounts {
  const sentences = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw new StartError(error instanceof Error ? error.message : String(error), { cause: error });
    }
  };
  return {
    list: () =>
      sentences(async () => {
        const { readUsers } = await import('@sallyport/auth');
        return [...(await readUsers(file)).users.values()];
      }),
    apply: (order) =>
      sentences(async () => {
        const { changeUsersFile, hashed } = await import('@sallyport/auth');
        await changeUsersFile(file, await hashed(order));
      }),
  };
}

async function fileBeside(socket: string): Promise<string> {
  const beside = join(dirname(socket), 'sallyport.yaml');
  if (!existsSync(beside))
    throw new StartError(
      `No gateway answers on ${socket} and there is no ${beside}: name the configuration with user --config FILE.`,
    );
  return usersFileOf(beside, `and nothing of it answers on ${socket}: name the socket of an auth with -s.`);
}

/** @param cluster goes on after "FILE is the configuration of a cluster": its file is only what the replicas start from. */
async function usersFileOf(config: string, cluster: string): Promise<string> {
  const text = await readFile(config, 'utf8').catch((error: unknown) => {
    throw new StartError(
      `${config} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  });
  if (isClusterText(text)) throw new StartError(`${config} is the configuration of a cluster ${cluster}`);
  const result = parseSettings(text, config);
  if ('settings' in result) return result.settings.usersFile;
  throw new StartError(result.errors.join('\n'));
}

const ASK_AUTH =
  'and its users-file is only what they start from: leave --config out and name the socket of an auth with -s, so that the change counts everywhere.';
