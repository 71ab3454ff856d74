// Package doctor checks a compute node: everything that clientmountd needs, from its configuration
// to the storage, and what earlier mounts have left behind. It also collects a support bundle.
//
// Sources collect the facts concurrently, each within a time limit, because on a broken node any of
// them can hang. The checks are functions of the facts. The package changes nothing, and touches no
// path at or below a mount.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

// Options select what to check.
type Options struct {
	Service systemd.Service // clientmountd, with its name and version
	// Root is the prefix of paths of the system; "": the real root. The paths in the configuration,
	// such as that of the token, are not prefixed.
	Root string
	// Exec runs the commands; nil: on this machine.
	Exec node.Runner
	// Environ is the environment of this process. It is that of the daemon if systemd does not have
	// the service.
	Environ []string
	// Config is the path of the configuration file, and Directory the runtime directory; "": those
	// of the daemon.
	Config, Directory string
	// Offline skips the checks that use the network.
	Offline bool
}

// Time limits of a run, from its start. A run takes less than 10 seconds even if nothing answers.
// Within them, each source has as much time as possible, because an overloaded node is slow.
const (
	systemdBy  = 3500 * time.Millisecond // what systemd reports
	settingsBy = 6 * time.Second         // the configuration and the credentials
	everything = 9 * time.Second         // all else
)

// Time limits of requests and commands.
const (
	connectLimit = 3 * time.Second // a request over a new connection
	serverLimit  = 3 * time.Second // all other requests to the API server
	commandLimit = 4 * time.Second // a command
	killLimit    = time.Second     // until node.Exec returns after the limit of a command
)

// facts are what the sources have found.
type facts struct {
	now     time.Time
	offline bool

	unit     fact[*systemd.Inspection]
	replaced bool // the program of the running daemon has been replaced since its start
	shipped  []systemd.Directive
	settings fact[*settings]

	ownNamespace    fact[namespace]
	daemonNamespace fact[namespace] // zero if the daemon does not run

	credentials fact[*credentials]
	token       *mountstate.Token // nil: the daemon does not run, or does not report it
	moverToken  *mountstate.Token // nil: nnf-dm has recorded none
	connection  *kube.Connection  // nil: not tried
	server      *server           // nil: not asked

	missing     []string // programs that are not installed
	lvm         fact[node.LVMSettings]
	volumes     fact[[]node.LV]
	notes       []string // what the LVM tools printed in addition to their reports
	namespaces  fact[[]node.Namespace]
	aliases     map[string][]string // other names of the devices of namespaces
	devicesFile bool                // LVM has a file that lists devices
	kernel      fact[kernel]
	programs    fact[map[string]bool]
	nids        fact[string]

	directory string // of the daemon
	records   fact[*records]
	mounts    fact[[]node.Mount] // below mount.roots
	marked    fact[[]node.Marked]
}

// fact is a value, or the reason why it is not known.
type fact[T any] struct {
	value T
	err   error
}

// timeoutError is the reason why a fact is not known if its source does not answer.
type timeoutError struct{ limit time.Duration }

func (e timeoutError) Error() string {
	return fmt.Sprintf("no answer within %v", max(e.limit, 0).Round(100*time.Millisecond))
}

// source starts to collect a fact. get returns it, or a timeoutError at the deadline, even if collect
// ignores its context: a read of a file can hang in the kernel.
func source[T any](ctx context.Context, by time.Time, collect func(context.Context) (T, error)) (get func() fact[T]) {
	ctx, cancel := context.WithDeadlineCause(ctx, by, timeoutError{time.Until(by)})
	done := make(chan fact[T], 1)
	go func() {
		value, err := collect(ctx)
		done <- fact[T]{value, err}
	}()
	return func() fact[T] {
		defer cancel()
		select {
		case f := <-done:
			return f
		case <-ctx.Done():
			return fact[T]{err: context.Cause(ctx)}
		}
	}
}

// Run runs all checks and returns their results in a fixed order. If ctx is cancelled, the results
// are incomplete.
func Run(ctx context.Context, o Options) []checklist.Check {
	return check(newMachine(o).gather(ctx))
}

// checks are all checks, in the order of the output: what the others depend on comes first.
var checks = []struct {
	name string
	run  func(*facts) []finding
}{
	{"configuration", checkConfiguration},
	{"unit", checkUnit},
	{"service", checkService},
	{"limits", checkLimits},
	{"namespace", checkNamespace},
	{"credentials", checkCredentials},
	{"dns", checkDNS},
	{"tcp", checkTCP},
	{"tls", checkTLS},
	{"clock", checkClock},
	{"authentication", checkAuthentication},
	{"permissions", checkPermissions},
	{"versions", checkVersions},
	{"nnf-dm", checkMover},
	{"lvm", checkLVM},
	{"lvm.conf", checkLVMSettings},
	{"device-mapper", checkDeviceMapper},
	{"nvme", checkNVMe},
	{"locks", checkLocks},
	{"lustre", checkLustre},
	{"records", checkRecords},
	{"mounts", checkMounts},
	{"volumes", checkVolumes},
	{"commands", checkCommands},
}

// check returns the results of all checks.
func check(f *facts) (list []checklist.Check) {
	for _, c := range checks {
		for _, one := range c.run(f) {
			list = append(list, checklist.Check{Name: c.name, State: one.state, Text: one.text, Hint: one.hint})
		}
	}
	return list
}

// finding is one result of a check.
type finding struct {
	state      checklist.State
	text, hint string
}

func ok(format string, args ...any) finding {
	return finding{checklist.OK, fmt.Sprintf(format, args...), ""}
}

func warn(hint, format string, args ...any) finding {
	return finding{checklist.Warn, fmt.Sprintf(format, args...), hint}
}

func fail(hint, format string, args ...any) finding {
	return finding{checklist.Fail, fmt.Sprintf(format, args...), hint}
}

func skip(format string, args ...any) []finding {
	return []finding{{checklist.Skip, fmt.Sprintf(format, args...), ""}}
}

// only returns the findings, or the given one if there are none.
func only(list []finding, otherwise finding) []finding {
	if len(list) == 0 {
		return []finding{otherwise}
	}
	return list
}

// count returns a number with a noun.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// some joins the first elements of a list, with the number of the others.
func some[T any](list []T, text func(T) string) string {
	const most = 5
	var b strings.Builder
	for i, one := range list {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(list)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(text(one))
	}
	return b.String()
}

func same(s string) string { return s }

// oneLine joins the lines of an error.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// getenv returns a variable of an environment. If it is repeated, the last value applies.
func getenv(environ []string, name string) (value string) {
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}
