/**
 * grpc.health.v1, the standard contract by which balancers and our own clients ask whether a service takes calls. Made from
 * a description instead of a file: it is not ours, and two messages with one field each are all of it.
 */
import type { ServerUnaryCall, ServerWritableStream, ServiceDefinition, sendUnaryData } from '@grpc/grpc-js';
import { fromJSON, type MethodDefinition } from '@grpc/proto-loader';

export type Serving = 'SERVING' | 'NOT_SERVING';

/** Health of one server: all its services together. */
export class RpcHealth {
  #serving: Serving = 'SERVING';
  readonly #services: ReadonlySet<string>;
  readonly #watchers = new Set<(serving: Serving) => void>();

  /** @param services full names; '' is the whole server and always known. */
  constructor(services: readonly string[]) {
    this.#services = new Set(['', ...services]);
  }

  get serving(): Serving {
    return this.#serving;
  }

  set serving(serving: Serving) {
    if (serving === this.#serving) return;
    this.#serving = serving;
    for (const tell of this.#watchers) tell(serving);
  }

  /** For `Server.addService`. */
  get handlers() {
    return {
      Check: (call: ServerUnaryCall<HealthRequest, object>, answer: sendUnaryData<object>) =>
        this.#services.has(call.request.service)
          ? answer(null, { status: this.#serving })
          : answer({ code: NOT_FOUND, details: 'unknown service' }),
      Watch: (call: ServerWritableStream<HealthRequest, object>) => {
        const known = this.#services.has(call.request.service);
        call.write({ status: known ? this.#serving : 'SERVICE_UNKNOWN' });
        if (this.#watchers.size >= MAX_WATCHERS || !known) return void call.end();
        const tell = (serving: Serving) => void call.write({ status: serving });
        this.#watchers.add(tell);
        call.on('cancelled', () => {
          this.#watchers.delete(tell);
          call.end();
        });
      },
    };
  }
}

export function isServing(answer: unknown): boolean {
  return typeof answer === 'object' && answer !== null && 'status' in answer && answer.status === 'SERVING';
}

interface HealthRequest {
  service: string;
}

const definition = fromJSON(
  {
    nested: {
      grpc: {
        nested: {
          health: {
            nested: {
              v1: {
                nested: {
                  HealthCheckRequest: { fields: { service: { type: 'string', id: 1 } } },
                  HealthCheckResponse: {
                    fields: { status: { type: 'ServingStatus', id: 1 } },
                    nested: {
                      ServingStatus: {
                        values: { UNKNOWN: 0, SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 },
                      },
                    },
                  },
                  Health: {
                    methods: {
                      Check: {
                        requestType: 'HealthCheckRequest',
                        responseType: 'HealthCheckResponse',
                        comment: '',
                      },
                      Watch: {
                        requestType: 'HealthCheckRequest',
                        responseType: 'HealthCheckResponse',
                        responseStream: true,
                        comment: '',
                      },
                    },
                  },
                },
              },
            },
          },
        },
      },
    },
  },
  { defaults: true, enums: String },
)['grpc.health.v1.Health'];

function methodOf(name: 'Check' | 'Watch'): MethodDefinition<object, object> {
  const method = definition === undefined || 'format' in definition ? undefined : definition[name];
  if (!method) throw new Error(`grpc.health.v1 has no ${name}`);
  return method;
}

export const HEALTH_METHODS = { Check: methodOf('Check'), Watch: methodOf('Watch') };
export const HEALTH_SERVICE: ServiceDefinition = HEALTH_METHODS;
/** gRPC status code. */
const NOT_FOUND = 5;
const MAX_WATCHERS = 1024;
