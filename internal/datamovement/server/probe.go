package server

import "context"

// Probe returns nil when the locks that requests take can be had; see Pulse for
// the rest of their way. Locks know no ctx, so a goroutine of a service that
// hangs stays behind: the watchdog is about to end the process.
func (s *Service) Probe(ctx context.Context) error {
	free := make(chan struct{})
	go func() {
		defer close(free)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range s.feeds {
			f.get("")
		}
		s.tombstones.find("")
	}()
	select {
	case <-free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
