import { Catch, type RpcExceptionFilter } from '@nestjs/common';
import { throwError, type Observable } from 'rxjs';
import { ServiceUnavailable, StoreUnavailable } from '@sallyport/cluster';

/** What cannot be reached is the operator's to mend, so its sentence goes to him; other faults are for the log alone. */
@Catch(ServiceUnavailable, StoreUnavailable)
export class UnavailableFilter implements RpcExceptionFilter<Error> {
  catch(fault: Error): Observable<never> {
    return throwError(() => ({ code: FAILED_PRECONDITION, message: fault.message }));
  }
}

/** gRPC status code. Not UNAVAILABLE, which says that the asked process itself is away. */
const FAILED_PRECONDITION = 9;
