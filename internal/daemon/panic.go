package daemon

import (
	"fmt"
	"runtime/debug"
)

// PanicError is a panic turned into an error.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

// Error does not include the stack: log it as an attribute of its own.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Safely calls f and returns its error, or a *PanicError when it panics. One
// malformed object must cost its own work only, never the process.
func Safely(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	return f()
}
