// A Nest app in TypeScript with decorators, as its author left it: `--import tsx`, and tsconfig.json beside it.
import 'reflect-metadata'
import { Controller, Get, Inject, Injectable, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { referenceHandler } from '@handover/load'

@Injectable()
class Greeter {
  greet(): { hello: string } {
    return { hello: 'Nest' }
  }
}

@Controller()
class Hello {
  constructor(@Inject(Greeter) private readonly greeter: Greeter) {}

  @Get('hello')
  hello(): { hello: string } {
    return this.greeter.greet()
  }
}

@Module({ controllers: [Hello], providers: [Greeter] })
class App {}

const app = await NestFactory.create(App, { logger: ['warn', 'error'], bodyParser: false })
const answer = referenceHandler('1')
app.use((req: never, res: never, next: () => void) => {
  if ((req as { url: string }).url === '/hello') next()
  else answer(req, res)
})
await app.listen(Number(process.env['PORT']), '127.0.0.1')
