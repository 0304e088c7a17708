import { Module } from '@nestjs/common';
import type { DynamicModule } from '@nestjs/common';
import { ADMIN_PARTS, AdminController } from './admin.controller.ts';
import type { AdminParts } from './admin.controller.ts';

@Module({})
export class AdminModule {
  static with(parts: AdminParts, imports: DynamicModule[] = []): DynamicModule {
    return {
      module: AdminModule,
      imports,
      controllers: [AdminController],
      providers: [{ provide: ADMIN_PARTS, useValue: parts }],
    };
  }
}
