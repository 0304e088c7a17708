import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { Journal } from './journal.ts';
import { sessionsContract } from './sessions.contract.ts';
import { MemorySessions } from './sessions.memory.ts';

const folders: string[] = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))));

sessionsContract('in memory', (clock) => MemorySessions.open({ clock }));

sessionsContract('in memory, with a journal', async (clock) => {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-journal-'));
  folders.push(folder);
  return MemorySessions.open({ clock, journal: await Journal.open(folder) });
});
