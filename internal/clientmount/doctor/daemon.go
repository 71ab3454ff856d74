package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// The checks of this file are about the daemon on this node: its configuration, unit and
// credentials.

// checkConfiguration loads the configuration as the daemon does.
func checkConfiguration(f *facts) []finding {
	if err := f.settings.err; err != nil {
		next := "correct it, and check with: clientmountd config check"
		if h := hint.Of(err); h != "" {
			next = h
		}
		return []finding{fail(next, "cannot be loaded: %s", oneLine(err))}
	}
	s := f.settings.value
	var list []finding
	for _, w := range s.loaded.Warnings {
		list = append(list, warn("correct it, and check with: clientmountd config check", "%s", w))
	}
	if mode := s.Controller.Plan.Mode; mode != "real" {
		list = append(list, warn("remove mount.mode from the configuration", "mount.mode is %q, which mounts nothing and is for tests only", mode))
	}
	files := "no file; all values are defaults or come from the environment or flags"
	if len(s.loaded.Files) > 0 {
		files = strings.Join(s.loaded.Files, ", ")
	}
	return append(list, ok("%s; the name of this node is %s", files, s.node))
}

// unitProperties are the properties of the unit that the checks read.
var unitProperties = []string{
	"LoadState", "LoadError", "NeedDaemonReload", "KillMode", "TimeoutStopUSec", "MemoryMax", "MemoryHigh", "RuntimeDirectoryPreserve", "Environment",
}

// checkUnit checks which unit file systemd uses, and whether the unit hides mounts.
func checkUnit(f *facts) []finding {
	i, err := f.unit.value, f.unit.err
	if i == nil || i.Status == nil {
		return []finding{fail("check systemd: systemctl is-system-running", "systemd does not report the unit: %s", oneLine(err))}
	}
	if !i.Status.Service.Installed {
		next := "install the package clientmountd, or run clientmountd install"
		if err == nil {
			err = errors.New("there is no unit")
		}
		return []finding{warn(cmp.Or(hint.Of(err), next), "%s", oneLine(err))}
	}
	var list []finding
	if err != nil {
		list = append(list, warn("check systemd: systemctl is-system-running", "%s", oneLine(err)))
	}
	for _, u := range i.Status.Units {
		switch u.Load {
		case "masked":
			list = append(list, fail("if this is not intended, run systemctl unmask "+u.Unit, "%s is masked and cannot be started", u.Unit))
		case "loaded":
		default:
			list = append(list, fail("run systemctl status "+u.Unit+", and correct the file", "%s cannot be loaded (%s)", u.Unit, u.Load))
		}
	}
	for _, advice := range i.Hidden {
		text, next, _ := strings.Cut(advice, "; ")
		if !strings.Contains(text, " is masked") {
			list = append(list, warn(next, "%s", text))
		}
	}
	if !f.anyNamespace() {
		for _, d := range systemd.HidingOf(i.Directives) {
			list = append(list, fail("remove this line, then run systemctl daemon-reload and systemctl restart "+f.service(),
				"%s gives the service a private mount namespace, or prevents it from mounting: no job would see its mounts", d))
		}
	}
	if i.Properties["NeedDaemonReload"] == "yes" {
		list = append(list, warn("run systemctl daemon-reload, then systemctl restart "+f.service(), "its files have changed since systemd read them"))
	}
	return only(list, ok("%s", some(i.Files, same)))
}

// anyNamespace reports whether the daemon may run in any mount namespace.
func (f *facts) anyNamespace() bool {
	return f.settings.err == nil && f.settings.value.MountNamespace == "any"
}

// service returns the name of the service for commands.
func (f *facts) service() string {
	if i := f.unit.value; i != nil && i.Status != nil && i.Status.Program != "" {
		return i.Status.Program
	}
	return "clientmountd"
}

// checkService checks whether the daemon runs.
func checkService(f *facts) []finding {
	i := f.unit.value
	if i == nil || i.Status == nil || !i.Status.Service.Installed {
		return skip("there is no unit")
	}
	s, name := i.Status.Service, f.service()
	var list []finding
	switch u := i.Status.Units[0]; {
	case !s.Active:
		text := fmt.Sprintf("does not run: %s (%s)", u.Active, u.Sub)
		if u.Result != "" && u.Result != "success" {
			text += ", result " + u.Result
		}
		list = append(list, fail(fmt.Sprintf("see journalctl -u %s -n 20; start it with systemctl start %s", name, name), "%s", text))
	case !s.Ready:
		list = append(list, warn("it waits for the API server; see the checks below and journalctl -u "+name+" -n 20", "is starting as pid %d: %s", s.PID, s.Status))
	case f.replaced:
		list = append(list, warn("run systemctl restart "+name+"; mounts stay in place", "pid %d runs a program that has been replaced since", s.PID))
	}
	if !s.Enabled {
		list = append(list, warn("run systemctl enable "+name, "does not start at boot: %s", i.Status.Units[0].UnitFile))
	}
	status := s.Status
	if status != "" {
		status = ": " + status
	}
	return only(list, ok("runs as pid %d%s", s.PID, status))
}

// stopReserve is how much longer than daemon.shutdown_timeout systemd must wait for the daemon.
const stopReserve = 5 * time.Second

// checkLimits compares limits of the unit with those of the unit in the package.
func checkLimits(f *facts) []finding {
	i := f.unit.value
	if i == nil || i.Properties == nil {
		return skip("there is no unit")
	}
	var list []finding
	dropIn := "correct it in a drop-in: systemctl edit " + f.service()
	if kept := i.Properties["RuntimeDirectoryPreserve"]; kept == "no" {
		list = append(list, fail(dropIn, "RuntimeDirectoryPreserve=no: systemd removes the records of mounts when the daemon stops"))
	}
	stop, err := systemd.ParseSpan(i.Properties["TimeoutStopUSec"])
	if wanted := f.shutdownTimeout() + stopReserve; err == nil && stop >= 0 && stop < wanted {
		list = append(list, warn(dropIn, "TimeoutStopSec=%v: systemd kills the daemon before the running step can finish; at least %v is needed", stop, wanted))
	}
	for _, name := range []string{"MemoryHigh", "MemoryMax"} {
		have, err := systemd.ParseBytes(i.Properties[name])
		wanted, werr := systemd.ParseBytes(f.recommended(name))
		if err == nil && werr == nil && have >= 0 && have < wanted {
			list = append(list, warn(dropIn, "%s=%d MiB: LVM tools and hooks may be killed; %d MiB is recommended", name, have>>20, wanted>>20))
		}
	}
	if kill := i.Properties["KillMode"]; kill != "" && kill != f.recommended("KillMode") {
		list = append(list, warn(dropIn, "KillMode=%s: at a stop, systemd kills the running mount or unmount command; %s is recommended", kill, f.recommended("KillMode")))
	}
	for _, name := range []string{"GOGC", "GOMAXPROCS"} {
		list = append(list, f.older(i, name)...)
	}
	return only(list, ok("as recommended"))
}

// recommended returns the value of a directive in the unit of the package.
func (f *facts) recommended(key string) string {
	i := slices.IndexFunc(f.shipped, func(d systemd.Directive) bool { return d.Key == key })
	if i < 0 {
		return ""
	}
	return f.shipped[i].Value
}

func (f *facts) shutdownTimeout() time.Duration {
	if f.settings.err != nil {
		return 0
	}
	return f.settings.value.Controller.ShutdownTimeout
}

// older returns findings about settings of the Go runtime that sites made for the older daemon.
func (f *facts) older(i *systemd.Inspection, name string) []finding {
	value := getenv(i.Start.Environ, name)
	if value == "" || name == "GOMAXPROCS" && value == "1" || name == "GOGC" && value != "off" {
		return nil
	}
	where := ""
	for _, d := range i.Directives {
		if d.Key == "Environment" && strings.Contains(d.Value, name+"="+value) && !strings.HasPrefix(d.File, systemd.PackageDirectory) {
			where = fmt.Sprintf(" (%s:%d)", d.File, d.Line)
		}
	}
	return []finding{warn("remove it, then run systemctl daemon-reload and systemctl restart "+f.service(),
		"%s=%s%s is a setting for the older daemon: it takes memory or processors from jobs", name, value, where)}
}

// checkNamespace checks whether mounts of the daemon are visible to the host.
func checkNamespace(f *facts) []finding {
	if f.anyNamespace() {
		return skip(`daemon.mount_namespace is "any"`)
	}
	var list []finding
	if err := f.daemonNamespace.err; err != nil {
		list = append(list, warn("look for hidepid= of /proc", "that of the daemon is not known: %s", oneLine(err)))
	} else if n := f.daemonNamespace.value; n.detail != "" && !n.host {
		list = append(list, fail("look for Protect…=, Private…=, ReadOnly…= or MountFlags= in the unit and its drop-ins",
			"the daemon runs in a separate mount namespace, so no job sees its mounts: %s", n.detail))
	}
	if err := f.ownNamespace.err; err != nil {
		list = append(list, warn("look for hidepid= of /proc", "not known: %s", oneLine(err)))
	} else if n := f.ownNamespace.value; !n.host {
		list = append(list, warn("run clientmountd doctor on the host, not in a container", "this command runs in a separate mount namespace, so it may not see mounts: %s", n.detail))
	}
	return only(list, ok("that of the host"))
}

// Remaining lifetimes below which a credential is reported.
const (
	tokenReserve       = 24 * time.Hour
	certificateReserve = 7 * 24 * time.Hour
)

const renewHint = "renew it with nnf-deploy credentials; the daemon uses a new file without a restart"

// checkCredentials checks the token and the CA that the daemon uses. It never shows the token.
func checkCredentials(f *facts) []finding {
	if f.settings.err != nil {
		return skip("the configuration cannot be loaded")
	}
	if err := f.credentials.err; err != nil {
		next := hint.Of(err)
		if next == "" {
			next = "the settings are in section [kubernetes]; clientmountd config dump shows those in effect"
		}
		return []finding{fail(next, "%s", oneLine(err))}
	}
	c := f.credentials.value
	list := slices.Clone(c.warnings)
	if c.fileErr != nil {
		list = append(list, fail(fmt.Sprintf("run chown root:root %s; chmod 0600 %s", c.file, c.file), "%s", oneLine(c.fileErr)))
	}
	expires, renew := c.client.Expires(), renewHint
	token, _ := c.client.Token()
	if renewal, own := f.ownToken(); own {
		renew = renewal.Reinstall()
	}
	switch left := expires.Sub(f.now); {
	case expires.IsZero():
	case left <= 0:
		list = append(list, fail("check the clock of this node, which reads "+stamp(f.now)+"; if it is right, "+renew, "the token expired at %s", stamp(expires)))
	case !token.Renewal.IsZero():
		list = append(list, tokenFindings("clientmountd", f.token)...)
	case left < tokenReserve:
		list = append(list, warn(renew, "the token expires in %v", left.Truncate(time.Minute)))
	}
	account := c.client.Account()
	if account == "" {
		account = "an unknown account"
	}
	lifetime := "does not expire"
	if !expires.IsZero() {
		lifetime = "expires at " + stamp(expires)
	}
	if !token.Renewal.IsZero() {
		lifetime += ", is renewed at " + stamp(token.Renewal)
		if f.token != nil && f.token.Condition == mountstate.TokenRetrying {
			lifetime += "; the last attempt failed, and the daemon retries: " + oneLine(errors.New(f.token.Error))
		}
	}
	return only(list, ok("%s of %s, %s", c.client.Source(), account, lifetime))
}

// checkMover checks what nnf-dm, which runs only while a job needs it, has recorded about its token.
func checkMover(f *facts) []finding {
	t := f.moverToken
	if t == nil {
		return skip("nnf-dm has recorded no token of an account of its own on this node")
	}
	if t.Condition == mountstate.TokenUnknown {
		return []finding{warn("install the same release of both daemons; if that does not help, remove the file and start nnf-dm", "%s", oneLine(errors.New(t.Error)))}
	}
	text := "the token of " + t.Account
	if t.Expires != nil {
		text += ", expires at " + stamp(*t.Expires)
	}
	if t.Renewal != nil {
		text += ", is renewed at " + stamp(*t.Renewal)
	}
	if t.Condition == mountstate.TokenRetrying {
		text += "; the last attempt failed, and the daemon retries: " + oneLine(errors.New(t.Error))
	}
	return only(tokenFindings("nnf-dm", t), ok("%s", text))
}

// ownToken reports whether the token is of the account of this node, and returns how to replace it.
func (f *facts) ownToken() (r kube.Renewal, own bool) {
	token, _ := f.credentials.value.client.Token()
	return kube.Renewal{Node: f.settings.value.node}, token.Kind == kube.TokenPerNode
}

// tokenFindings returns what the running daemon reports about the renewal of its token.
func tokenFindings(program string, t *mountstate.Token) []finding {
	if t == nil {
		return nil
	}
	next := cmp.Or(t.Hint, "see journalctl -u "+program+" -p debug EVENT=token-not-renewed")
	switch t.Condition {
	case mountstate.TokenFailing:
		return []finding{fail(next, "the daemon cannot renew the token: %s", oneLine(errors.New(t.Error)))}
	case mountstate.TokenUnsaved:
		return []finding{warn(next, "the renewed token is not stored, so a restart would use an older one: %s", oneLine(errors.New(t.Error)))}
	case mountstate.TokenExpired:
		return []finding{fail(next, "the token has expired")}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
