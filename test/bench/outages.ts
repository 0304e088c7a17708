/** What a failover bench says of its measurements: pure. Times in seconds. */

/** One client in one scenario. */
export interface Measured {
  client: number;
  /** The fault hit the node that had its tunnel. */
  affected: boolean;
  /** Longest time without an answer to a ping every 50 ms; undefined = none came again. */
  outage: number | undefined;
  /** The same for the other address family, which is pinged every 500 ms; undefined = there is none. */
  otherFamily: number | undefined;
  /** It asked for its password again, or ended. */
  prompted: boolean;
  sameAddress: boolean;
  /** Its TCP connections inside the tunnel still answer. */
  idle: boolean;
  busy: boolean;
}

export interface Spread {
  count: number;
  p50: number;
  p95: number;
  max: number;
}

/** Upper bounds of the outage of those that were hit. */
export interface Aim {
  p95?: number;
  max?: number;
}

export interface Outcome {
  clients: number;
  affected: number;
  /** Of those that were hit and came back by themselves; undefined = none did. */
  outage: Spread | undefined;
  /** Of those that were hit, in the address family pinged every 500 ms. */
  otherFamily: Spread | undefined;
  /** Longest silence of those that were not hit: what the machine itself adds. */
  bystanders: Spread | undefined;
  /** Hit and never answered again. */
  lost: number;
  prompts: number;
  sameAddress: number;
  /** Of those that were hit. */
  idleSurvivors: number;
  busySurvivors: number;
  /** undefined = there is no aim. */
  reached: boolean | undefined;
}

export function evaluate(measured: readonly Measured[], aim: Aim = {}): Outcome {
  const hit = measured.filter(({ affected }) => affected);
  const count = (chosen: readonly Measured[], is: (one: Measured) => boolean) => chosen.filter(is).length;
  const outage = spread(hit.map((one) => one.outage));
  const lost = count(hit, (one) => one.outage === undefined);
  const hasAim = aim.p95 !== undefined || aim.max !== undefined;
  return {
    clients: measured.length,
    affected: hit.length,
    outage,
    otherFamily: spread(hit.map((one) => one.otherFamily)),
    bystanders: spread(measured.filter(({ affected }) => !affected).map((one) => one.outage)),
    lost,
    prompts: count(measured, (one) => one.prompted),
    sameAddress: count(measured, (one) => one.sameAddress),
    idleSurvivors: count(hit, (one) => one.idle),
    busySurvivors: count(hit, (one) => one.busy),
    reached: hasAim ? lost === 0 && outage !== undefined && isWithin(outage, aim) : undefined,
  };
}

function isWithin(outage: Spread, { p95 = Infinity, max = Infinity }: Aim): boolean {
  return outage.p95 <= p95 && outage.max <= max;
}

/** Percentiles by nearest rank; undefined values do not count. @returns undefined when none is left */
export function spread(values: readonly (number | undefined)[]): Spread | undefined {
  const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return sorted.length === 0 ? undefined : { count: sorted.length, p50: at(0.5), p95: at(0.95), max: at(1) };
}

export interface Row extends Outcome {
  server: string;
  scenario: string;
  /** What else a reader must know, in a few words. */
  note?: string;
}

/** A table in Markdown, one row a scenario. */
export function table(rows: readonly Row[]): string {
  const head = [
    ...['server', 'scenario', 'clients hit', 'p50 s', 'p95 s', 'max s', 'aim', 'others, max s', 'prompts'],
    ...['same address', 'idle TCP', 'busy TCP', 'note'],
  ];
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map((row) => line(cells(row)))].join('\n');
}

function cells(row: Row): string[] {
  const seconds = (value: number | undefined) => (value === undefined ? '–' : value.toFixed(2));
  const { outage, bystanders, affected } = row;
  return [
    ...[row.server, row.scenario, row.lost > 0 ? `${affected}, ${row.lost} lost` : String(affected)],
    ...[seconds(outage?.p50), seconds(outage?.p95), seconds(outage?.max)],
    row.reached === undefined ? '–' : row.reached ? 'reached' : 'missed',
    ...[seconds(bystanders?.max), String(row.prompts), `${row.sameAddress} of ${row.clients}`],
    ...[`${row.idleSurvivors} of ${affected}`, `${row.busySurvivors} of ${affected}`, row.note ?? ''],
  ];
}
