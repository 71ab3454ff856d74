package container

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// encryptedSince is the version of systemd that introduced LoadCredentialEncrypted=.
const encryptedSince = 250

// TestEncryptedCredentials encrypts the tokens of the node's own accounts with the commands of the
// guide. Both daemons start with them, renew them and use the newest token after each restart. A
// proxy shows which token each request has.
func TestEncryptedCredentials(t *testing.T) {
	machine.Need(t)
	e := encryptedNode(t)
	t.Run("start", func(t *testing.T) { e.in(t, (*encryptedCredentials).start) })
	t.Run("renewal", func(t *testing.T) { e.in(t, (*encryptedCredentials).renew) })
	t.Run("newer credential", func(t *testing.T) { e.in(t, (*encryptedCredentials).replace) })
	t.Run("unreadable", func(t *testing.T) { e.in(t, (*encryptedCredentials).unreadable) })
	t.Run("wrong token", func(t *testing.T) { e.in(t, (*encryptedCredentials).wrongToken) })
	t.Run("refused", func(t *testing.T) { e.in(t, (*encryptedCredentials).refused) })
}

// encryptedCredentials is a node whose daemons have tokens of its own accounts, which systemd
// decrypts.
type encryptedCredentials struct {
	t      *testing.T
	m      *machine.Machine
	proxy  *lab.Proxy
	blocks manual.Set
	given  map[string]string // token in the credential, by daemon
	newest map[string]string // token that was issued last, by daemon
}

// users are the users of the daemons.
var users = map[string]string{"clientmountd": "root", "nnf-dm": "nnf-dm"}

// ownLife is the life of the tokens.
const ownLife = 24 * time.Hour

func encryptedNode(t *testing.T) *encryptedCredentials {
	t.Helper()
	m := machine.Containers(t, nil, "compute-08")[0]
	version, err := strconv.Atoi(m.Do("systemctl --version | sed -n 's/^systemd \\([0-9]*\\).*/\\1/p'"))
	if err != nil || version < encryptedSince {
		require.Missing(t, fmt.Sprintf("systemd %d of the machine has no LoadCredentialEncrypted=, which needs %d: %v", version, encryptedSince, err))
	}
	m.Install()
	m.Configure()
	t.Cleanup(func() { checkJournal(t, m) })
	f := m.Fixture
	f.Namespace(f.Rabbit)
	for _, o := range f.NodeObjects(fixture.SystemConfiguration("default", []any{fixture.StorageNode(f.Rabbit, f.Node)})) {
		f.ApplyStrict(o)
	}
	e := &encryptedCredentials{t: t, m: m, proxy: f.UseProxy(), given: map[string]string{}, newest: map[string]string{}, blocks: manual.Set{
		"credentials.md": manual.Commands(t, fixture.Root(t), "docs/credentials.md", "internal/e2e/machine/container TestEncryptedCredentials"),
	}}
	host, port, err := net.SplitHostPort(e.proxy.Address)
	f.Must(err)
	for path, daemon := range map[string]string{lab.Path("ClientMount", f.Node, ""): "clientmountd", lab.Path("Workflow", "default", "missing"): "nnf-dm"} {
		token := f.NodeToken(daemon, f.Node, ownLife)
		client := f.Client([]byte(token))
		wait.Within(t, f.Patience, "the role of "+daemon, func() bool {
			_, err := client.Do(f.Context(f.Patience), "GET", path, "", nil)
			return err == nil || lab.IsNotFound(err)
		})
		e.given[daemon], e.newest[daemon] = token, token
		d, _ := product.Of(daemon)
		m.Put("/etc/"+daemon+"/service.token", 0o640, []byte(token))
		m.Put("/etc/"+daemon+"/service.cert", 0o644, e.proxy.CA())
		m.Do("chown " + d.Owner + " /etc/" + daemon + "/service.*")
		m.Setting(daemon, "20-proxy", fmt.Sprintf("[kubernetes]\nservice_host = %q\nservice_port = %q\n", host, port))
	}
	return e
}

// in runs a part of the test as a subtest.
func (e *encryptedCredentials) in(t *testing.T, part func(*encryptedCredentials)) {
	c := *e
	c.t, c.m = t, e.m.For(t)
	part(&c)
}

// guide runs the block of the guide that contains a text.
func (e *encryptedCredentials) guide(part string) {
	e.t.Helper()
	e.m.Do("cd /root; set -e\n" + e.blocks.Take(e.t, "credentials.md", part))
}

// request lets nnf-dm send a request; clientmountd has sent some when it is ready.
func (e *encryptedCredentials) request() {
	e.t.Helper()
	e.m.Do("systemctl start clientmountd nnf-dm.socket")
	has(e.t, exits(e.t, e.m, 3, asUser+"nnf-dmctl copy -w missing /mnt/nnf/x /lus/global/"), "could not find workflow")
}

// restart restarts both daemons. The time that the API server reports is later by skew.
func (e *encryptedCredentials) restart(skew time.Duration) {
	e.t.Helper()
	e.m.Do("systemctl stop clientmountd nnf-dm.service")
	e.proxy.ClearRequests()
	e.proxy.Skew(skew)
	e.request()
}

// allUse checks that all requests since the restart have the newest tokens, and succeed.
func (e *encryptedCredentials) allUse(tokens map[string]string) {
	e.t.Helper()
	seen := map[string]bool{}
	for _, r := range e.proxy.Requests() {
		daemon, _, _ := strings.Cut(r.UserAgent, "/")
		seen[daemon] = true
		if code := r.Code(); r.Token != tokens[daemon] || code == 401 || code == 403 {
			e.t.Errorf("%s: %s %s, response %d, has another token than expected: %v", daemon, r.Method, r.Path, code, r.Token != tokens[daemon])
		}
	}
	for _, d := range daemons {
		if !seen[d.name] {
			e.t.Errorf("%s has sent nothing: %v", d.name, seen)
		}
	}
}

// credential returns the token that systemd has passed to a daemon.
func (e *encryptedCredentials) credential(daemon string) string {
	e.t.Helper()
	return e.m.Do("cat /run/credentials/" + daemon + ".service/service.token")
}

// start runs the commands of the guide. The daemons get the tokens with their usual users and
// sandboxes, and no file contains them.
func (e *encryptedCredentials) start() {
	e.m.Do("systemctl start clientmountd nnf-dm.socket")
	e.guide("55-encrypted-credentials.conf")
	e.guide("rm /etc/")
	e.restart(0)
	e.allUse(e.given)
	for _, d := range daemons {
		owner := users[d.name]
		if got, want := e.m.Do("stat -c '%U %a' /run/credentials/"+d.name+".service/service.token; ps -o user= -p "+e.m.Property(d.name, "MainPID")), owner+" 400\n"+owner; got != want {
			e.t.Errorf("%s: the owner of the credential and the user of the daemon are %q, want %q", d.name, got, want)
		}
		if e.credential(d.name) != e.given[d.name] {
			e.t.Errorf("%s: systemd has passed another token", d.name)
		}
		exits(e.t, e.m, 1, "runuser -u bob -- cat /run/credentials/"+d.name+".service/service.token")
		e.m.Put("/root/token", 0o600, []byte(e.given[d.name]))
		exits(e.t, e.m, 1, "grep -rlFf /root/token /etc /var/lib /usr/share/doc")
	}
	e.m.Do("rm /root/token")
	hostMountNamespace(e.t, e.m)
	sandbox(e.t, e.m)
}

// later waits until tokens are issued in another second than those before.
func later(t *testing.T) {
	started := time.Now()
	wait.Until(t, "the next second", func() bool { return time.Since(started) > time.Second })
}

// renewed waits until the daemons have stored newer tokens for the same accounts.
func (e *encryptedCredentials) renewed() {
	e.t.Helper()
	for _, d := range daemons {
		of, _ := product.Of(d.name)
		path := of.StoredToken()
		old, err := kube.ClaimsOf(e.newest[d.name])
		e.m.Fixture.Must(err)
		wait.Within(e.t, e.m.Fixture.Patience, "the renewed token of "+d.name, func() bool {
			stored := strings.TrimSpace(e.m.Do("cat " + path + " 2>/dev/null || :"))
			fresh, err := kube.ClaimsOf(stored)
			if err != nil || !fresh.Newer(old) {
				return false
			}
			if fresh.UID != old.UID || fresh.Life() != old.Life() {
				e.t.Errorf("%s: %+v was renewed as %+v", d.name, old, fresh)
			}
			e.newest[d.name] = stored
			return true
		})
		if got := e.m.Do("stat -c '%U %a' " + path); got != users[d.name]+" 600" {
			e.t.Errorf("%s: %s", path, got)
		}
	}
}

// Most of the life of the tokens has passed. After a restart, the daemons use the stored tokens
// although the credentials contain the old ones.
func (e *encryptedCredentials) renew() {
	later(e.t)
	e.restart(ownLife * 9 / 10)
	e.renewed()
	for range 2 {
		e.restart(0)
		e.allUse(e.newest)
	}
	for _, d := range daemons {
		if e.credential(d.name) != e.given[d.name] || e.newest[d.name] == e.given[d.name] {
			e.t.Errorf("%s: the credential has changed, or the token has not", d.name)
		}
	}
}

// A newer credential takes effect although there is a stored token, and is renewed in turn.
func (e *encryptedCredentials) replace() {
	later(e.t)
	for _, d := range daemons {
		token := e.m.Fixture.NodeToken(d.name, e.m.Fixture.Node, ownLife)
		e.given[d.name], e.newest[d.name] = token, token
		e.m.Put("/root/compute-01/"+d.name+"/service.token", 0o600, []byte(token))
	}
	e.guide("compute-01/")
	e.m.Do("! test -e /root/compute-01")
	e.restart(0)
	e.allUse(e.newest)
	later(e.t)
	e.restart(ownLife * 9 / 10)
	e.renewed()
	e.restart(0)
	e.allUse(e.newest)
}

// fails starts a daemon, which must fail, and returns the messages since in the journal. They are not
// only those of the unit: the journal does not know the unit of every process that has exited.
func (e *encryptedCredentials) fails(daemon string) string {
	e.t.Helper()
	e.m.Do("rm -f /root/cursor; journalctl --sync; journalctl -b -q -n 0 --cursor-file=/root/cursor")
	exits(e.t, e.m, 1, "systemctl start "+daemon+".service")
	has(e.t, exits(e.t, e.m, 3, "systemctl status "+daemon+".service"), "code=exited, status=")
	return e.m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat --cursor-file=/root/cursor")
}

// broken runs test after each of the scripts has replaced the credential $cred of a daemon $d. It
// then restores the credential.
func (e *encryptedCredentials) broken(scripts map[string]string, test func(e *encryptedCredentials, name, daemon string)) {
	for name, script := range scripts {
		e.t.Run(name, func(t *testing.T) {
			e.in(t, func(e *encryptedCredentials) {
				for _, d := range daemons {
					cred := "/etc/" + d.name + "/service.token.cred"
					// Without the restarts of systemd, there is one attempt.
					e.m.Do("systemctl stop clientmountd nnf-dm.service; printf '[Service]\\nRestart=no\\n' >/etc/systemd/system/" + d.name + ".service.d/60-test.conf; systemctl daemon-reload; cp " + cred + " /root/kept")
					e.m.Put("/root/token", 0o600, []byte(e.given[d.name]))
					e.m.Do("set -e; d=" + d.name + " cred=" + cred + " encrypt='systemd-creds encrypt --with-key=host --name=service.token'\n" + script)
					test(e, name, d.name)
					e.m.Do("systemctl stop " + d.name + ".service; rm /etc/systemd/system/" + d.name + ".service.d/60-test.conf; systemctl daemon-reload; cp /root/kept " + cred + "; rm /root/kept /root/token")
				}
				e.restart(0)
				e.allUse(e.newest)
			})
		})
	}
}

// systemd cannot decrypt the credential: the daemon does not start, the journal has one record of
// systemd about the credentials, and the command of the guide prints the reason.
func (e *encryptedCredentials) unreadable() {
	reason := e.blocks.Take(e.t, "credentials.md", "systemd-creds decrypt")
	reasons := map[string]string{"missing": "No such file", "of another name": "other.token", "of another node": "incorrect key"}
	e.broken(map[string]string{
		"missing":         "rm $cred",
		"empty":           ": >$cred",
		"truncated":       "truncate -s -20 $cred",
		"not encrypted":   "cp /root/token $cred",
		"of another name": "systemd-creds encrypt --with-key=host --name=other.token /root/token $cred",
		"of another node": "mv /var/lib/systemd/credential.secret /root/secret; $encrypt /root/token $cred; mv /root/secret /var/lib/systemd/credential.secret",
	}, func(e *encryptedCredentials, name, daemon string) {
		out := e.fails(daemon)
		if n := strings.Count(out, daemon+".service: Failed to set up credentials"); n != 1 || !strings.Contains(out, daemon+".service: Main process exited, code=exited, status=243/CREDENTIALS") || strings.Contains(out, "started version") {
			e.t.Errorf("%s: %d records about the credentials: %s", daemon, n, out)
		}
		has(e.t, exits(e.t, e.m, 1, strings.ReplaceAll(reason, "/etc/clientmountd/", "/etc/"+daemon+"/")), reasons[name])
		if daemon == "clientmountd" {
			out, _, err := e.m.Run(e.m.Context(), "clientmountd doctor | tr -s ' \\n' ' '")
			e.m.Fixture.Must(err)
			has(e.t, out, "systemd passes the token only when it starts the service", "status=243/CREDENTIALS means")
		}
	})
}

// The credential can be decrypted, but its content is not a token. The daemon reports that in one
// record, and does not use the stored token.
func (e *encryptedCredentials) wrongToken() {
	reasons := map[string]string{
		"empty": "is empty", "truncated": "is incomplete: the token has no signature", "binary": "is not a token: it contains white space or control characters",
		"encoded": "looks base64-encoded",
	}
	e.broken(map[string]string{
		"empty":     "$encrypt - $cred </dev/null",
		"truncated": "head -c 400 /root/token | $encrypt - $cred",
		"binary":    `printf 'a\001b' | $encrypt - $cred`,
		"encoded":   "base64 /root/token | $encrypt - $cred",
	}, func(e *encryptedCredentials, name, daemon string) {
		out := e.fails(daemon)
		want := "token failed to read: /run/credentials/" + daemon + ".service/service.token " + reasons[name]
		if n := strings.Count(out, daemon+": error: "); n != 1 || !strings.Contains(out, want) {
			e.t.Errorf("%s: %d errors, want one with %q: %s", daemon, n, want, out)
		}
	})
}

// The API server refuses a token whose signature is cut, and there is no stored token. The journal
// says that a new credential needs a restart.
func (e *encryptedCredentials) refused() {
	e.m.Do("systemctl stop clientmountd nnf-dm.service")
	for _, d := range daemons {
		of, _ := product.Of(d.name)
		e.m.Put("/root/token", 0o600, []byte(e.given[d.name][:len(e.given[d.name])-10]))
		e.m.Do("rm " + of.StoredToken() + " && systemd-creds encrypt --with-key=host --name=service.token /root/token /etc/" + d.name + "/service.token.cred")
	}
	e.m.Do("rm /root/token; systemctl start --no-block clientmountd")
	exits(e.t, e.m, 7, asUser+"nnf-dmctl copy -w missing /mnt/nnf/x /lus/global/")
	for _, d := range daemons {
		out := e.m.Await("the refusal is in the journal", "journalctl --sync; journalctl -b -q --no-pager -o cat -p warning -t "+d.name+" | grep 'refused the credentials'")
		has(e.t, out, "refused the credentials of system:serviceaccount:"+e.m.Fixture.Node+":"+d.name, "/run/credentials/"+d.name+".service/service.token", "a new one takes effect when the service is restarted")
	}
}
