package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// TB is the part of testing.TB that the packages in this directory use. The demo and
// the benchmark, which are not tests, get one from Do.
type TB interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Failed() bool
	Log(args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// Do runs f like a test function: Fatal stops it, and then the Cleanup functions run in
// reverse order. Do returns the errors of all of them. Logs go to standard error, unless
// ctx is done.
func Do(ctx context.Context, f func(TB)) error {
	r := &runner{ctx: ctx}
	r.try(func() { f(r) })
	for len(r.cleanups) > 0 {
		last := len(r.cleanups) - 1
		cleanup := r.cleanups[last]
		r.cleanups = slices.Delete(r.cleanups, last, last+1)
		r.try(cleanup)
	}
	return errors.Join(r.errs...)
}

type runner struct {
	ctx      context.Context
	cleanups []func()
	errs     []error
}

// fatal is the panic value of Fatal.
type fatal struct{}

func (r *runner) try(f func()) {
	defer func() {
		if v := recover(); v != nil && v != (fatal{}) {
			panic(v)
		}
	}()
	f()
}

func (r *runner) Helper()                  {}
func (r *runner) Context() context.Context { return r.ctx }
func (r *runner) Cleanup(f func())         { r.cleanups = append(r.cleanups, f) }
func (r *runner) Failed() bool             { return len(r.errs) > 0 }
func (r *runner) Errorf(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}
func (r *runner) Fatal(args ...any)                 { r.Error(args...); panic(fatal{}) }
func (r *runner) Fatalf(format string, args ...any) { r.Errorf(format, args...); panic(fatal{}) }

func (r *runner) Error(args ...any) {
	if err, ok := args[0].(error); ok && len(args) == 1 {
		r.errs = append(r.errs, err)
		return
	}
	r.errs = append(r.errs, errors.New(fmt.Sprint(args...)))
}

func (r *runner) Log(args ...any) {
	if r.ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, fmt.Sprint(args...))
	}
}
