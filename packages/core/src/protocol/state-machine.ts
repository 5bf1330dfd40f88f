/** Where something stands: a state of a union, which moves along a table. Pure: imports nothing. */

interface State { readonly is: string }
/** Which states may follow each. */
type Moves<S extends State> = Readonly<Record<S['is'], readonly S['is'][]>>
/** What may follow `From`. */
type Next<S extends State, M extends Moves<S>, From extends S['is']> = Extract<S, { is: M[From][number] }>

export class StateMachine<S extends State, M extends Moves<S>> {
  #state: S
  readonly #what: string
  readonly #moves: M
  readonly #moved: (from: S['is'], to: S) => void

  /** `what`: moves, for an error. `moved` is called after each move. */
  constructor(what: string, moves: M, first: S, moved: (from: S['is'], to: S) => void) {
    this.#what = what
    this.#moves = moves
    this.#state = first
    this.#moved = moved
  }

  get state(): S {
    return this.#state
  }

  /**
   * `from` names the current state, so that the compiler checks the move. Throws when that is another, or where a cast hid the move from
   * the compiler: a defect of ours, never of a user's.
   */
  move<From extends S['is']>(from: From, to: Next<S, M, From>): void {
    const allowed: readonly string[] = this.#moves[from]
    if (this.#state.is !== from || !allowed.includes(to.is)) throw new Error(`illegal ${this.#what}: ${from} to ${to.is} while ${this.#state.is}`)
    this.#state = to
    this.#moved(from, to)
  }
}
