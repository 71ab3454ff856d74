package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// listen subscribes to the signals of a daemon. Broken pipes are taken too and
// never looked at: a Go program dies when its standard error breaks, which a
// restart of the journal does. They are not ignored, because commands that we
// start would inherit that.
func listen(hup bool) (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if hup {
		signal.Notify(signals, syscall.SIGHUP)
	}
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	return signals, func() {
		signal.Stop(signals)
		signal.Stop(pipes)
	}
}

// signalled is the cause of Main's ctx; a Main that returns it ended well.
type signalled struct{ os.Signal }

func (s signalled) Error() string        { return "received signal: " + s.String() }
func (s signalled) Is(target error) bool { return target == context.Canceled }

func signalNumber(sig os.Signal) int {
	n, _ := sig.(syscall.Signal)
	return int(n)
}
