package offload

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

var doctorBehaviours = []behaviour{
	{"doctor: a job that can copy", "v2/Describe", both, doctorFine},
	{"doctor: another user's workflow looks like a missing one", "v2/Describe 9.2", one, doctorForeign},
	{"doctor: storage that is not mounted", "v2/Describe 9.19", both, doctorNotMounted},
	{"doctor: a workflow in another state", "v2/Describe 4.2/2", one, doctorState},
	{"doctor: no permission for the socket", "v2/Describe", one, doctorNoPermission},
	{"doctor: no API server", "v2/Describe", one, doctorOutage},
	{"doctor: a daemon without the call", "v2/Describe", one, doctorOldDaemon},
}

// doctor runs nnf-dmctl doctor as a user, in the environment of the job.
func (s *env) doctor(c caller, workflow string, args ...string) (out string, code int) {
	s.t.Helper()
	program, err := lab.Binary("nnf-dmctl")
	s.Must(err)
	cmd := exec.CommandContext(s.ctx(), program, append([]string{"doctor"}, args...)...)
	cmd.Env = []string{"DW_WORKFLOW_NAME=" + workflow, "DW_WORKFLOW_NAMESPACE=default", "NNF_DM_SOCKET=" + s.Socket, "DW_PERSISTENT_data=" + s.path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(c.uid), Gid: uint32(c.gid)}}
	data, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	} else if exit != nil && len(exit.Stderr) > 0 {
		s.t.Errorf("standard error: %s", exit.Stderr)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

// diagnosed checks the exit code, and the results of checks as "NAME STATE: TEXT". Other
// checks must be ok. TEXT is a part of the text.
func (s *env) diagnosed(c caller, workflow string, code int, want ...string) {
	s.t.Helper()
	out, got := s.doctor(c, workflow, "--output=json")
	schema.Check(s.t, "doctor", []byte(out))
	var d checklist.Document
	s.Must(json.Unmarshal([]byte(out), &d))
	if got != code || len(d.Checks) < 7 {
		s.t.Errorf("exit code %d, want %d: %s", got, code, out)
	}
	left := want
	for _, check := range d.Checks {
		if check.State == checklist.OK {
			continue
		}
		is := check.Name + " " + string(check.State) + ": " + check.Text
		if len(left) == 0 {
			s.t.Errorf("unexpected: %s", is)
			continue
		}
		head, text, _ := strings.Cut(s.fill(left[0]), ": ")
		if !strings.HasPrefix(is, head+": ") || !strings.Contains(is, text) {
			s.t.Errorf("%s; want %s", is, left[0])
		}
		if check.State != checklist.Skip && check.Hint == "" {
			s.t.Errorf("no hint: %s", is)
		}
		left = left[1:]
	}
	if len(left) > 0 {
		s.t.Errorf("missing: %q", left)
	}
}

func doctorFine(s *env) {
	s.usual()
	s.create()
	out, code := s.doctor(alice, s.job)
	if code != 0 || strings.Count(out, "\nOK ") != 6 {
		s.t.Errorf("exit code %d\n%s", code, out)
	}
	text := strings.Join(strings.Fields(out), " ")
	for _, part := range []string{
		"default/JOB is in state PreRun with status Completed", "PATH (DW_PERSISTENT_data): " + s.k.name + ", ready, can be copied", " destinations copies can go to ", "1 of 5000 copies on this node",
	} {
		if !strings.Contains(text, s.fill(part)) {
			s.t.Errorf("no %q in\n%s", s.fill(part), out)
		}
	}
	// Tests that run at the same time have global file systems of their own.
	_, destinations, _ := strings.Cut(text, "copies can go to ")
	destinations, _, _ = strings.Cut(destinations, " OK ")
	if !slices.Contains(strings.Split(destinations, ", "), global) {
		s.t.Errorf("%s is not one of the destinations %q", global, destinations)
	}
	if n := s.records(); n != 0 {
		s.t.Errorf("%d audit records", n)
	}
}

// Apart from the name, the output for another user's workflow and for one that does not exist
// is the same, byte for byte. Only the log shows the difference.
func doctorForeign(s *env) {
	s.usual()
	missing := strings.Repeat("x", len(s.job))
	for _, format := range []string{"text", "json"} {
		foreign, code := s.doctor(eve, s.job, "--output="+format)
		same, codeSame := s.doctor(eve, missing, "--output="+format)
		if code != 1 || codeSame != 1 || strings.ReplaceAll(foreign, s.job, missing) != same || !strings.Contains(same, "could not find workflow") {
			s.t.Errorf("exit codes %d and %d\n%s\n%s", code, codeSame, foreign, same)
		}
	}
	if n := s.records(`"uid":1002`, "/datamovement.v2.DataMover/Describe", "hidden: the workflow belongs to another user"); n != 2 {
		s.t.Errorf("%d audit records, want one for each call", n)
	}
}

func doctorNotMounted(s *env) {
	s.usual()
	computes := s.clientMount("computes", s.Node, s.entry(s.path))
	s.Report(computes, "unmounted", false)
	s.diagnosed(alice, s.job, 1, "mount fail: PATH (DW_PERSISTENT_data): "+s.k.name+", not ready: ClientMount NODE/JOB-computes: 'PATH' is not mounted")
	s.Report(computes, "mounted", true)
	s.diagnosed(alice, s.job, 0)
	s.Report(s.clientMount("servers", s.Rabbit, s.entry(s.onRabbit)), "unmounted", false)
	s.diagnosed(alice, s.job, 1, "mount fail: "+s.k.name+", ready, cannot be copied: ClientMount RABBIT/JOB-servers: 'SERVER' is not mounted on the rabbit")
}

func doctorState(s *env) {
	s.usual()
	s.workflowIs("PostRun", "DriverWait")
	s.diagnosed(alice, s.job, 1, "workflow fail: default/JOB is in state PostRun with status DriverWait: Workflow must be in 'PreRun' state", "mount skip: ")
	s.workflowIs("PreRun", "Completed")
	s.diagnosed(alice, s.job, 0)
	s.create()
}

func doctorNoPermission(s *env) {
	s.usual()
	rest := []string{"version skip: ", "workflow skip: ", "mount skip: ", "destinations skip: ", "limits skip: "}
	s.Must(os.Chmod(s.Socket, 0o600))
	s.diagnosed(alice, s.job, 1, append([]string{"socket fail: refuses you: permission denied; its mode is 0600, user 0, group 0"}, rest...)...)
	dir := filepath.Dir(s.Socket)
	s.Must(os.Chmod(dir, 0o700))
	s.diagnosed(alice, s.job, 1, append([]string{"socket fail: cannot be accessed: permission denied for its directory"}, rest...)...)
	s.Must(os.Chmod(dir, 0o755))
	s.Must(os.Chmod(s.Socket, 0o666))
	s.diagnosed(alice, s.job, 0)
}

func doctorOutage(s *env) {
	s.usual()
	s.diagnosed(alice, s.job, 0)
	s.Proxy.Refuse()
	s.diagnosed(alice, s.job, 1, "workflow fail: not known: a request to the API server failed", "mount skip: ", "destinations skip: ", "limits skip: ")
	s.Must(s.Proxy.Accept())
	s.Stop(s.d)
	s.diagnosed(alice, s.job, 1, "socket fail: does not exist", "version skip: ", "workflow skip: ", "mount skip: ", "destinations skip: ", "limits skip: ")
}

// The simulated daemon serves version 1 only, like daemons of earlier releases.
func doctorOldDaemon(s *env) {
	s.simulate()
	s.diagnosed(alice, s.job, 0, "workflow warn: this daemon is too old", "mount skip: ", "destinations skip: ", "limits skip: ")
}

// doctorBare runs without objects of the administrator.
func doctorBare(s *env) {
	s.usual()
	s.diagnosed(alice, s.job, 1, "destinations fail: the cluster has no global Lustre file system")
	s.Must(s.Cluster.Delete(s.ctx(), "ClientMount", s.Node, s.job+"-computes"))
	s.diagnosed(alice, s.job, 1, "mount fail: the workflow has no storage on node NODE", "destinations fail: no global")
}
