package daemon

import (
	"log/slog"
	"os"
	"sync"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// maxStatus bounds the status text, in bytes. Escaping makes it four times as
// long at worst, which is still less than the 4096 that systemd takes.
const maxStatus = 512

// Notifier tells the service manager how the process is doing (sd_notify(3)).
// Without NOTIFY_SOCKET, and on a nil Notifier, every method does nothing. A
// message that cannot be sent is logged once. Safe for concurrent use.
type Notifier struct {
	log *slog.Logger

	mu       sync.Mutex
	ready    bool
	stopping bool
	status   string
	failing  bool
}

// NewNotifier returns a Notifier that logs its troubles to log.
func NewNotifier(log *slog.Logger) *Notifier { return &Notifier{log: log} }

// Enabled reports whether anybody listens.
func (n *Notifier) Enabled() bool { return n != nil && os.Getenv("NOTIFY_SOCKET") != "" }

// Ready says that the start is complete. Only the first call sends.
func (n *Notifier) Ready() {
	n.locked(func() {
		if !n.ready {
			n.ready = true
			n.send(sddaemon.SdNotifyReady)
		}
	})
}

// Status sets the line that `systemctl status` shows. It is sent when the text
// has changed; text out of objects is safe, as it cannot begin a second line.
func (n *Notifier) Status(status string) {
	status = text.Escape(clip(status, maxStatus))
	n.locked(func() {
		if n.status != status {
			n.status = status
			n.send("STATUS=" + status)
		}
	})
}

// Stopping says that the shutdown has begun. Only the first call sends.
func (n *Notifier) Stopping() {
	n.locked(func() {
		if !n.stopping {
			n.stopping = true
			n.send(sddaemon.SdNotifyStopping)
		}
	})
}

// Reloading says that the configuration is being read again, calls reload,
// and says when that has ended, however it ended. Before the process is ready
// and while it stops only reload is called, because those messages would be
// taken for the end of the start or of the stop.
func (n *Notifier) Reloading(reload func()) {
	tell := false
	n.locked(func() {
		if tell = n.ready && !n.stopping; tell {
			n.send(sddaemon.SdNotifyReloading + "\n" + sddaemon.SdNotifyMonotonicUsec())
		}
	})
	if tell {
		defer n.locked(func() {
			if !n.stopping {
				n.send(sddaemon.SdNotifyReady)
			}
		})
	}
	reload()
}

// ping tells the watchdog that we are alive.
func (n *Notifier) ping() { n.locked(func() { n.send(sddaemon.SdNotifyWatchdog) }) }

func (n *Notifier) locked(f func()) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *Notifier) send(state string) {
	_, err := sddaemon.SdNotify(false, state)
	if err != nil && !n.failing && n.log != nil {
		n.log.Warn("cannot notify the service manager", "error", err,
			"hint", "is NotifyAccess= set in the unit, and NOTIFY_SOCKET reachable?")
	}
	n.failing = err != nil
}
