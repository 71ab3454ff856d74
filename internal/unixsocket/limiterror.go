package unixsocket

import (
	"errors"
	"fmt"
	"time"
)

// ErrLimit is in every refusal for a limit.
var ErrLimit = errors.New("limit reached")

// LimitError says which limit refused whom. Its text is for the caller: it has
// nothing about other users but that there are some.
type LimitError struct {
	UID        uint32
	What       string        // what is counted: LimiterOptions.What
	Limit      int           // slots, or the burst of a rate
	Rate       float64       // per second; 0: the slots were the limit
	Shared     bool          // the slots of all users together
	RetryAfter time.Duration // 0: when something of theirs ends
}

func (e *LimitError) Error() string {
	switch {
	case e.Rate > 0:
		return fmt.Sprintf("too many %s of uid %d: more than %g a second after the first %d; try again in %s",
			e.What, e.UID, e.Rate, e.Limit, e.RetryAfter.Round(time.Millisecond))
	case e.Shared:
		return fmt.Sprintf("too many %s on this node: %d of all users; try again later", e.What, e.Limit)
	}
	return fmt.Sprintf("too many %s of uid %d: %d at once are allowed; end some first", e.What, e.UID, e.Limit)
}

func (e *LimitError) Unwrap() error { return ErrLimit }
