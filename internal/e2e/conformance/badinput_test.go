package conformance

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// A badInput is an invalid ClientMount. Depending on the CRDs, the API server's schema may
// reject it; otherwise the daemon must refuse it.
type badInput struct {
	name     string
	spoil    func(o, mount lab.Object) // the object, and its first mount
	profile  *fixture.ProfileSpec      // replaces the shipped one
	severity string
	texts    []string // in the status
	schema   bool     // the schema may reject it
}

func field(path ...string) func(value any) func(o, m lab.Object) {
	return func(value any) func(o, m lab.Object) {
		return func(_, m lab.Object) {
			at := map[string]any(m)
			for _, p := range path[:len(path)-1] {
				at = at[p].(map[string]any)
			}
			if last := path[len(path)-1]; value == nil {
				delete(at, last)
			} else {
				at[last] = value
			}
		}
	}
}

func label(key, value string) func(o, m lab.Object) {
	return func(o, _ lab.Object) {
		labels := o["metadata"].(map[string]any)["labels"].(map[string]any)
		if labels[key] = value; value == "" {
			delete(labels, key)
		}
	}
}

func all(list ...func(o, m lab.Object)) func(o, m lab.Object) {
	return func(o, m lab.Object) {
		for _, f := range list {
			f(o, m)
		}
	}
}

var path = field("mountPath")

// asLustre changes the entry to type lustre.
func asLustre(fs, nids string) func(o, m lab.Object) {
	return all(field("type")("lustre"), field("device", "type")("lustre"),
		field("device", "lustre")(map[string]any{"fileSystemName": fs, "mgsAddresses": nids}))
}

func xfsHooks(lines ...string) *fixture.ProfileSpec {
	return &fixture.ProfileSpec{Hooks: map[string]fixture.Hooks{"xfs": {"preMount": lines}}}
}

var badInputs = []badInput{
	// Missing blocks.
	{name: "no deviceReference", spoil: field("device", "deviceReference")(nil), severity: "Fatal", texts: []string{"spec.mounts[0].device.deviceReference is missing"}},
	{name: "no lvm block", spoil: field("device", "lvm")(nil), severity: "Fatal", texts: []string{"spec.mounts[0].device.lvm is missing"}},
	{name: "no lustre block", spoil: all(asLustre("fs", mgs), field("device", "lustre")(nil)), severity: "Fatal", texts: []string{"spec.mounts[0].device.lustre is missing"}},
	{name: "no mounts", spoil: func(o, _ lab.Object) { o["spec"].(map[string]any)["mounts"] = []any{} }, severity: "Fatal", texts: []string{"spec.mounts is empty"}, schema: true},
	{name: "unknown type", spoil: field("type")("ext4"), severity: "Fatal", texts: []string{"unsupported file system type"}, schema: true},
	{name: "unknown device type", spoil: field("device", "type")("nfs"), severity: "Fatal", texts: []string{"device.type"}, schema: true},
	{name: "unknown desired state", spoil: func(o, _ lab.Object) { o["spec"].(map[string]any)["desiredState"] = "gone" }, severity: "Fatal", texts: []string{"invalid desired state gone"}, schema: true},
	{name: "text for a number", spoil: field("userID")("root"), severity: "Fatal", texts: []string{"userID"}, schema: true},

	// Paths.
	{name: "path: /", spoil: path("/"), severity: "Fatal", texts: []string{"mountPath", "mounting on / is not allowed"}},
	{name: "path: / in disguise", spoil: path("///"), severity: "Fatal", texts: []string{"mountPath", "mounting on / is not allowed"}},
	{name: "path: empty", spoil: path(""), severity: "Fatal", texts: []string{"mountPath", "it is empty"}, schema: true},
	{name: "path: relative", spoil: path("mnt/nnf/x"), severity: "Fatal", texts: []string{"mountPath", "it must be absolute"}},
	{name: "path: ..", spoil: path("/mnt/nnf/../../etc"), severity: "Fatal", texts: []string{"mountPath", "must not contain . or .."}},
	{name: "path: system directory", spoil: path("/etc/cron.d"), severity: "Fatal", texts: []string{"mounting is not allowed on or below /etc"}},
	{name: "path: /mnt itself", spoil: path("/mnt"), severity: "Fatal", texts: []string{"mounting is not allowed on /mnt itself"}},
	{name: "path: cron's tables", spoil: path("/var/spool/cron"), severity: "Fatal", texts: []string{`spec.mounts[0].mountPath "/var/spool/cron" is refused`, "outside mount.roots, which allows mounts only below /mnt"}},
	{name: "path: RPM's database", spoil: path("/var/lib/rpm"), severity: "Fatal", texts: []string{`"/var/lib/rpm" is refused`, "mount.roots"}},
	{name: "path: elsewhere", spoil: path("/opt/x"), severity: "Fatal", texts: []string{`"/opt/x" is refused`, "mount.roots"}},
	{name: "path: elsewhere, by variables", profile: &fixture.ProfileSpec{Overrides: map[string]string{"$SITE": "/opt/x"}}, spoil: path("$SITE/y"), severity: "Fatal", texts: []string{`"/opt/x/y" is refused`, "mount.roots"}},
	{name: "path: newline", spoil: path("/mnt/nnf/a\nb"), severity: "Fatal", texts: []string{`"/mnt/nnf/a\nb"`, "a path consists of"}},
	{name: "path: control character", spoil: path("/mnt/nnf/\x1b[2J"), severity: "Fatal", texts: []string{`\x1b[2J`, "a path consists of"}},
	{name: "path: blank", spoil: path("/mnt/nnf/a b"), severity: "Fatal", texts: []string{"a path consists of"}},
	{name: "path: escape of the mount table", spoil: path(`/mnt/nnf/a\040b`), severity: "Fatal", texts: []string{"a path consists of"}},
	{name: "path: shell", spoil: path("/mnt/nnf/;touch${IFS}pwned"), severity: "Fatal", texts: []string{"mountPath"}},
	{name: "path: command substitution", spoil: path("/mnt/nnf/$(id)"), severity: "Fatal", texts: []string{"mountPath"}},
	{name: "path: option", spoil: path("--bind"), severity: "Fatal", texts: []string{"it must be absolute"}},
	{name: "path: unknown variable", spoil: path("/mnt/nnf/$WHATEVER"), severity: "Fatal", texts: []string{"variable $WHATEVER is unknown"}},
	{name: "path: long name", spoil: path("/mnt/nnf/" + strings.Repeat("a", 256)), severity: "Fatal", texts: []string{"255 bytes are allowed in one name"}},
	{name: "path: very long", spoil: path("/mnt/nnf" + strings.Repeat("/abcdefgh", 20000)), severity: "Fatal", texts: []string{"at most 4095 bytes"}},
	{name: "path: not UTF-8 friendly", spoil: path("/mnt/nnf/\u202egnp.exe"), severity: "Fatal", texts: []string{`\u202e`, "a path consists of"}},
	{name: "path twice", spoil: func(o, m lab.Object) {
		spec := o["spec"].(map[string]any)
		spec["mounts"] = append(spec["mounts"].([]any), map[string]any(m))
	}, severity: "Fatal", texts: []string{"spec.mounts[0].mountPath and spec.mounts[1].mountPath are the same path"}},
	{name: "inner path before the outer one", spoil: func(o, m lab.Object) {
		spec, outer := o["spec"].(map[string]any), maps.Clone(m)
		m["mountPath"] = m.String("mountPath") + "/inner"
		spec["mounts"] = append(spec["mounts"].([]any), map[string]any(outer))
	}, severity: "Fatal", texts: []string{"spec.mounts[0].mountPath", "is below spec.mounts[1].mountPath", "list the outer path first"}},
	{name: "path below a file", spoil: func(o, m lab.Object) {
		spec, inner := o["spec"].(map[string]any), maps.Clone(m)
		m["type"] = "none"
		inner["mountPath"] = m.String("mountPath") + "/inner"
		spec["mounts"] = append(spec["mounts"].([]any), map[string]any(inner))
	}, severity: "Fatal", texts: []string{"is below spec.mounts[0].mountPath", "whose mount target is a file"}},

	// Identities.
	{name: "other node", spoil: func(o, _ lab.Object) { o["spec"].(map[string]any)["node"] = "compute-99" }, severity: "Fatal", texts: []string{`the ClientMount is for node "compute-99"`}},
	{name: "negative uid", spoil: all(field("setPermissions")(true), field("userID")(-1)), severity: "Fatal", texts: []string{"userID", "-1", "expected a number from 0 to 4294967294"}, schema: true},
	{name: "uid of 32 bits and more", spoil: all(field("setPermissions")(true), field("userID")(int64(1)<<32)), severity: "Fatal", texts: []string{"userID", "a number from 0"}, schema: true},
	{name: "gid that chown ignores", spoil: all(field("setPermissions")(true), field("groupID")(int64(1)<<32-1)), severity: "Fatal", texts: []string{"groupID", "a number from 0"}, schema: true},
	{name: "negative index", spoil: field("device", "deviceReference", "data")(-3), severity: "Fatal", texts: []string{"an index must not be negative"}},
	{name: "hostile reference", spoil: field("device", "deviceReference", "objectReference")(map[string]any{"name": "a;b", "namespace": "rabbit-01"}), severity: "Fatal", texts: []string{"objectReference.name"}},
	{name: "hostile rabbit", spoil: field("device", "deviceReference", "objectReference")(map[string]any{"name": "a", "namespace": "../../rabbit"}), severity: "Fatal", texts: []string{"objectReference.namespace"}},
	{name: "namespace id in words", spoil: field("device", "lvm", "nvmeInfo")([]any{map[string]any{"deviceSerial": "nqn.x", "namespaceID": "twelve", "namespaceGUID": ""}}), severity: "Fatal", texts: []string{"namespaceID", `"twelve"`}},
	{name: "NQN with a newline", spoil: field("device", "lvm", "nvmeInfo")([]any{map[string]any{"deviceSerial": "nqn.x\n", "namespaceID": "1", "namespaceGUID": ""}}), severity: "Fatal", texts: []string{"deviceSerial"}},
	{name: "Lustre name with shell", spoil: asLustre("a;b", mgs), severity: "Fatal", texts: []string{"fileSystemName"}},
	{name: "Lustre name like an option", spoil: asLustre("-fs", mgs), severity: "Fatal", texts: []string{"fileSystemName"}},
	{name: "Lustre servers with a blank", spoil: asLustre("fs", "10.0.0.1@tcp -o suid"), severity: "Fatal", texts: []string{"mgsAddresses"}},
	{name: "no owner label", spoil: label(api.LabelTargetOwnerUID, ""), severity: "Fatal", texts: []string{"unable to find " + api.LabelTargetOwnerUID + " label"}},
	{name: "job id with shell", spoil: label(api.LabelJobID, "$(id)"), severity: "Fatal", texts: []string{"job_id"}, schema: true},
	{name: "job id of 64 characters", spoil: label(api.LabelJobID, strings.Repeat("a", 64)), severity: "Fatal", texts: []string{"job_id"}, schema: true},

	// Profiles.
	{name: "no profile label", spoil: label(api.LabelPinnedProfileName, ""), severity: "Fatal", texts: []string{"unable to find " + api.LabelPinnedProfileName + " label"}},
	{name: "no profile namespace label", spoil: label(api.LabelPinnedProfileNamespace, ""), severity: "Fatal", texts: []string{"unable to find " + api.LabelPinnedProfileNamespace + " label"}},
	{name: "no labels", spoil: func(o, _ lab.Object) { delete(o["metadata"].(map[string]any), "labels") }, severity: "Fatal", texts: []string{"unable to find labels"}},
	{name: "no such profile", spoil: label(api.LabelPinnedProfileName, "missing"), severity: "Major", texts: []string{"unable to get file system information", "missing", "not found"}},
	{name: "profile in a missing namespace", spoil: label(api.LabelPinnedProfileNamespace, "nowhere"), severity: "Major", texts: []string{"unable to get file system information", "not found"}},
	{name: "unpinned profile", profile: &fixture.ProfileSpec{Unpinned: true}, severity: "Fatal", texts: []string{"Expected pinned NnfStorageProfile, but it was not pinned: "}},
	{name: "variables in a cycle", profile: &fixture.ProfileSpec{Overrides: map[string]string{"$JOBID": "$USERID", "$USERID": "$JOBID"}, Hooks: map[string]fixture.Hooks{"xfs": {"preMount": {"echo $JOBID"}}}}, severity: "Major", texts: []string{"in a cycle", "$JOBID -> $USERID -> $JOBID"}},
	{name: "variables that explode", profile: &fixture.ProfileSpec{Overrides: map[string]string{"$A": strings.Repeat("$B", 200), "$B": strings.Repeat("$C", 200), "$C": strings.Repeat("$D", 200), "$D": "x"}, Hooks: map[string]fixture.Hooks{"xfs": {"preMount": {"echo $A"}}}}, severity: "Major", texts: []string{"expand to more than"}},
	{name: "bad override", profile: &fixture.ProfileSpec{Overrides: map[string]string{"$FSTYPE": "xfs -o suid"}}, severity: "Major", texts: []string{"variableOverride sets $FSTYPE", "invalid value"}},
	{name: "override that is not a variable", profile: &fixture.ProfileSpec{Overrides: map[string]string{"": "x"}}, severity: "Major", texts: []string{"variableOverride has the invalid key"}},
	{name: "profile of 1 MiB, one line", profile: xfsHooks("echo " + strings.Repeat("x", 1<<20)), severity: "Major", texts: []string{"is too long"}},
	{name: "profile of 1 MiB, many lines", profile: xfsHooks(lines(1024, 1000)...), severity: "Major", texts: []string{"has 1000 preMount lines, at most 256"}},
	{name: "NUL in a hook", profile: xfsHooks("echo a\x00b"), severity: "Major", texts: []string{"NUL"}, schema: true},
}

func lines(size, n int) []string {
	var list []string
	for range n {
		list = append(list, "true "+strings.Repeat("x", size-5))
	}
	return list
}

// TestBadInput checks that each of these results in an error in the status and a line with
// a hint in the log. Nothing is run, the daemon keeps running, another object is mounted at
// the same time, and the invalid one can be deleted.
func TestBadInput(t *testing.T) {
	s := newEnv(t, kinds[0])
	s.UseProfile(fixture.ProfileSpec{})
	good := s.storage(3, lab.VolumeOptions{})
	s.run()
	pid, byDaemon, bySchema := s.d.PID, 0, 0
	for i, in := range badInputs {
		t.Run(in.name, func(t *testing.T) {
			s := s.in(t)
			name := fmt.Sprintf("bad-%d", i)
			switch err := s.spoiled(name, in); {
			case err == nil:
				byDaemon++
			case in.schema && refusedBySchema(err):
				bySchema++
				t.Logf("rejected by the schema: %.200v", err)
				return
			default:
				t.Fatal(err)
			}
			s.failed(name, in.severity, in.texts...)
			f := s.logged("ClientMount failed", name)
			if hint, _ := f["hint"].(string); hint == "" || f["severity"] != in.severity {
				t.Errorf("the log line: %v", f)
			}
			if o := s.get(name); o.Ready("mounted") || o.At("status", "allReady") != false {
				t.Errorf("status %v", o["status"])
			}
			for _, c := range s.commands() {
				t.Errorf("called: %s", c)
			}
			other := "good-" + name
			s.MountAndWait(other, good)
			s.Delete(other)
			s.Must(s.ClearLog())
			s.Delete(name)
			for _, c := range s.commands() {
				if strings.HasPrefix(c, "umount") || strings.HasPrefix(c, "mount") {
					t.Errorf("called at the deletion: %s", c)
				}
			}
			s.Must(s.ClearLog())
		})
	}
	fmt.Printf("conformance: %d bad inputs: %d refused by the daemon, %d by the schema\n", len(badInputs), byDaemon, bySchema)
	s.alive()
	if s.d.PID != pid {
		t.Error("the daemon was restarted")
	}
	s.ends()
}

// in returns the test environment for a subtest.
func (s *env) in(t *testing.T) *env {
	c := *s
	c.Fixture, c.reporter, c.t = s.For(t), t, t
	return &c
}

// spoiled creates the invalid object, with a separate profile.
func (s *env) spoiled(name string, in badInput) error {
	s.Helper()
	profile := s.Profile
	if in.profile != nil {
		profile = s.Profile + "-" + name
		if _, err := s.Cluster.Apply(s.Context(patience), fixture.Profile(profile, *in.profile)); err != nil {
			return err
		}
	}
	m := s.k.spec(s.Path(name), 7)
	o := fixture.ClientMount(name, s.Node, fixture.ClientMountSpec{Profile: profile, OwnerUID: s.Owner, Mounts: []fixture.MountSpec{m}})
	if in.spoil != nil {
		in.spoil(o, lab.Object(o.At("spec", "mounts", 0).(map[string]any)))
	}
	_, err := s.Cluster.Create(s.Context(patience), o)
	return err
}

func refusedBySchema(err error) bool {
	status := (*lab.StatusError)(nil)
	return errors.As(err, &status) && (status.Code == http.StatusUnprocessableEntity || status.Code == http.StatusBadRequest)
}
