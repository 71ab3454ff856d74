package vm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

// patient is how long clientmountd doctor may take. It ends its own sources after 9 seconds, and
// every instruction is emulated.
const patient = 30 * time.Second

// diagnose runs clientmountd doctor and returns the results that are worse than OK, as
// "NAME STATE TEXT".
func diagnose(t *testing.T, m *machine.Machine, flags string) (problems []string) {
	t.Helper()
	started := time.Now()
	out, code, err := m.Run(m.Context(), "clientmountd doctor -o json "+flags)
	took := time.Since(started)
	t.Logf("clientmountd doctor %s takes %.1f s", flags, took.Seconds())
	var doc checklist.Document
	if err != nil || json.Unmarshal([]byte(out), &doc) != nil || took > patient {
		t.Fatalf("clientmountd doctor: exit code %d after %v, %v\n%s", code, took, err, out)
	}
	schema.Check(t, "doctor", []byte(out))
	for _, c := range doc.Checks {
		if c.State == checklist.Warn || c.State == checklist.Fail {
			problems = append(problems, fmt.Sprintf("%s %s %s", c.Name, c.State, c.Text))
			if c.Hint == "" {
				t.Errorf("without a hint: %+v", c)
			}
		}
	}
	if checklist.Failed(doc.Checks) != (code == 1) || code > 1 {
		t.Errorf("exit code %d: %q", code, problems)
	}
	return problems
}

// finds checks that the problems are exactly these, each given by the start and a part. One without
// a part is optional.
func finds(t *testing.T, m *machine.Machine, flags string, want ...[2]string) {
	t.Helper()
	got := diagnose(t, m, flags)
	for range 3 { // the emulated machine may be too slow for the time limits of the command
		if !slices.ContainsFunc(got, func(p string) bool {
			return strings.Contains(p, "no answer within") || strings.Contains(p, "time limit of")
		}) {
			break
		}
		t.Logf("too slow: %q", got)
		got = diagnose(t, m, flags)
	}
	for _, w := range want {
		if w[1] != "" && !slices.ContainsFunc(got, func(p string) bool { return strings.HasPrefix(p, w[0]) && strings.Contains(p, w[1]) }) {
			t.Errorf("no %s with %q: %q", w[0], w[1], got)
		}
	}
	for _, p := range got {
		if !slices.ContainsFunc(want, func(w [2]string) bool { return strings.HasPrefix(p, w[0]) }) {
			t.Errorf("not expected: %s", p)
		}
	}
}

// clientmountd doctor finds nothing on a healthy machine, and what is wrong on others.
func examined(t *testing.T) {
	m := node(t)
	s := newSite(t, "xfs")
	s.requestMounts(nil)
	s.mounted()
	reload := "systemctl daemon-reload && systemctl restart clientmountd"

	t.Run("healthy", func(t *testing.T) {
		finds(t, m.For(t), "")
		text := m.For(t).Do(doctorCommand(t))
		if !strings.HasPrefix(text, "OK    configuration   ") {
			t.Errorf("the output is %s", text)
		}
	})
	t.Run("unit hidden", func(t *testing.T) {
		m := m.For(t)
		m.Do("cp /usr/lib/systemd/system/clientmountd.service /etc/systemd/system/ && " + reload)
		defer m.Do("rm /etc/systemd/system/clientmountd.service && " + reload)
		finds(t, m, "", [2]string{"unit warn", "/etc/systemd/system/clientmountd.service overrides the unit of the package"})
	})
	t.Run("mount namespace", func(t *testing.T) {
		m := m.For(t)
		const dropIn = "/etc/systemd/system/clientmountd.service.d/90-private.conf"
		m.Put(dropIn, 0o644, []byte("[Service]\nPrivateTmp=yes\nEnvironment=GOGC=off\n"))
		m.Do("systemctl daemon-reload; systemctl restart clientmountd; :")
		defer m.Do("rm " + dropIn + " && " + reload)
		m.Await("the daemon refuses to start", "journalctl -b -q -o cat -u clientmountd EVENT=mount-namespace | grep -q .")
		finds(t, m, "", [2]string{"unit fail", dropIn + ":2: PrivateTmp=yes"}, [2]string{"limits warn", "GOGC=off"}, [2]string{"service", ""}, [2]string{"namespace", ""})
	})
	t.Run("lvm.conf", func(t *testing.T) {
		m := m.For(t)
		m.Do("cp /etc/lvm/lvm.conf /run/lvm.conf && printf 'report {\\n\\tprefixes = 1\\n}\\n' >>/etc/lvm/lvm.conf")
		defer m.Do("cp /run/lvm.conf /etc/lvm/lvm.conf")
		finds(t, m, "--offline", [2]string{"lvm.conf fail", "report/prefixes=1"}, [2]string{"lvm fail", "lvs did not print the expected JSON"})
	})
	t.Run("token", func(t *testing.T) {
		m := m.For(t)
		const token = "/etc/clientmountd/service.token"
		m.Do("cp -p " + token + " /run/token")
		defer m.Do("cp -p /run/token " + token)
		// The same token, except that it claims to have expired, so that its signature is wrong.
		m.Do(`t=$(cat /run/token); h=${t%%.*}; s=${t##*.}; c=$(printf '{"sub":"x","exp":1700000000}' | base64 -w 0 | tr -d =)
			printf %s "$h.$c.$s" >` + token + `; chmod 0644 ` + token)
		finds(t, m, "", [2]string{"credentials warn", "readable by users other than its owner"}, [2]string{"credentials fail", "the token expired at 2023-11-14T22:13:20Z"},
			[2]string{"authentication fail", "refuses the credentials"})
	})
	t.Run("leftovers", func(t *testing.T) {
		m := m.For(t)
		other := newSite(t, "raw")
		m.Do("lvchange -ay " + other.vg + " && mkdir -p /mnt/nnf/left && mount -t tmpfs left /mnt/nnf/left")
		defer m.Do("umount /mnt/nnf/left && rmdir /mnt/nnf/left && lvchange -an " + other.vg)
		finds(t, m, "--offline", [2]string{"volumes warn", other.vg + "/lv-0 is active but has no record"}, [2]string{"mounts warn", "/mnt/nnf/left (tmpfs, left) is mounted but has no record"})
	})
	t.Run("hanging command", func(t *testing.T) {
		m := m.For(t)
		// A write to a suspended device waits in the kernel, and SIGKILL has no effect.
		m.Do("dmsetup suspend --noflush --nolockfs " + s.mapped(0))
		defer m.Do("dmsetup resume " + s.mapped(0))
		// Like a command of the daemon, it has a process group in the session of its parent.
		m.Do("bash -c 'set -m; CLIENTMOUNTD_OBJECT=test dd if=/dev/zero of=" + s.mapped(0) + " bs=4k count=1 oflag=direct seek=100000 conv=notrunc </dev/null >/dev/null 2>&1 & echo $! >/run/hanging'")
		m.Await("the command waits in the kernel", `p=$(cat /run/hanging); [ "$(cut -d' ' -f3 /proc/$p/stat)" = D ] && kill -KILL $p`)
		const bundle = "/run/support.tar.gz" // the command may run again
		finds(t, m, "--offline --bundle $(rm -f "+bundle+"; echo "+bundle+") 2>/dev/null", [2]string{"commands fail", "dd if=/dev/zero"})
		names := m.Do("tar tzf " + bundle)
		for _, want := range []string{"/stack\n", "/mounts.json\n", "/health.json\n", "/timeline.json\n", "/journal.txt\n", "/lvs.txt\n", "/records/", "/proc/self/mountinfo\n", "/unit.txt\n"} {
			if !strings.Contains(names+"\n", want) {
				t.Errorf("the bundle has no %s: %s", want, names)
			}
		}
		m.Do(`[ "$(stat -c %a ` + bundle + `)" = 600 ] && ! tar xzOf ` + bundle + ` | grep -qF "$(cat /etc/clientmountd/service.token)"`)
	})
	s.release()
	s.unmounted()
	s.noTargets()
}
