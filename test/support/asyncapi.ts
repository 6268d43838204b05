import { Parser } from '@asyncapi/parser'
import type { DynamicModule, Type } from '@nestjs/common'
import { Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import {
  type AsyncApiDocument,
  type AsyncApiOptions,
  createAsyncApiDocument,
} from '../../src/asyncapi/index.js'
import { CollectingLogger } from './nest-app.js'

/** What the official parser finds wrong with a document, errors and warnings alike. */
export async function problemsOf(document: AsyncApiDocument | string): Promise<string[]> {
  const text = typeof document === 'string' ? document : JSON.stringify(document)
  const problems = await new Parser().validate(text)
  // Severity 0 is an error and 1 a warning; the others are advice, such as to add a contact.
  return problems
    .filter(({ severity }) => severity <= 1)
    .map(({ message, path }) => `${path.join('.')}: ${message}`)
}

export interface PreviewParts {
  readonly imports: (DynamicModule | Type)[]
  readonly controllers?: Type[]
  readonly providers?: Type[]
}

/** The document of an application that has not been created, and what was logged. */
export async function documentOf(parts: PreviewParts, options: Partial<AsyncApiOptions> = {}) {
  @Module(parts)
  class AppModule {}
  const logger = new CollectingLogger()
  const app = await NestFactory.createApplicationContext(AppModule, {
    preview: true,
    abortOnError: false,
    logger,
  })
  try {
    const document = await createAsyncApiDocument(app, { title: 'Fleet', version: '1.0.0', ...options })
    return { document, warnings: logger.lines.filter(line => line.includes('[AsyncApi]')) }
  } finally {
    await app.close()
  }
}
