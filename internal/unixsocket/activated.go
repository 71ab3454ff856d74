package unixsocket

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// activated gives the listening socket that systemd handed to this process
// (sd_listen_fds(3)): the one with FileDescriptorName=name, else the first that
// fits. nil: none was handed over. The environment says so only once: it is
// cleared, so that no child believes it too.
func activated(name string, log *slog.Logger) (*net.UnixListener, error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, nil
	}
	var chosen *os.File
	var unfit error
	for _, f := range files {
		if err := fits(f); err != nil {
			unfit = errors.Join(unfit, fmt.Errorf("descriptor %d (%s): %w", f.Fd(), f.Name(), err))
		} else if chosen == nil || name != "" && f.Name() == name && chosen.Name() != name {
			chosen = f
		}
	}
	defer func() {
		for _, f := range files {
			f.Close() // the listener has its own descriptor
		}
	}()
	if chosen == nil {
		return nil, fmt.Errorf("systemd handed over no listening Unix stream socket: does the socket unit have ListenStream= with a path, and Accept=no? %w", unfit)
	}
	for _, f := range files {
		if f != chosen {
			log.Warn("a socket of the socket unit is not used", "name", f.Name(), "hint", "one ListenStream= is enough")
		}
	}
	l, err := net.FileListener(chosen)
	if err != nil {
		return nil, fmt.Errorf("socket of systemd: %w", err)
	}
	return l.(*net.UnixListener), nil
}

func fits(f *os.File) error {
	for _, want := range []struct {
		option, value int
		unfit         string
	}{
		{unix.SO_DOMAIN, unix.AF_UNIX, "not a Unix socket"},
		{unix.SO_TYPE, unix.SOCK_STREAM, "not a stream socket"},
		{unix.SO_ACCEPTCONN, 1, "not listening"},
	} {
		switch got, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, want.option); {
		case err != nil:
			return os.NewSyscallError("getsockopt", err)
		case got != want.value:
			return errors.New(want.unfit)
		}
	}
	return nil
}
