package units

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// fakes are the programs that the scripts for workload managers call. Each notes its calls in
// $STATE/calls, with < and > around each argument. The files in $STATE are what they know:
// wait and health have the output of clientmountd, and wait.code and health.code its exit code;
// absent exists if the node has no ClientMount of the job;
// jobspec is that of the job; drained has the reason of a drained node; refuse has the verbs of
// the workload manager that fail.
var fakes = map[string]string{
	"clientmountd": `code=$(cat "$STATE/$1.code" 2>/dev/null || echo 0)
case "$*" in *" --for unmounted --timeout 0s") [ -e "$STATE/absent" ]; exit ;; esac
case "$1 $code" in
"health 1") cat "$STATE/health" ;;
"wait "[15]) echo "clientmountd: warning: the configuration cannot be read" >&2; echo "clientmountd: error: not there within 5m0s: $(cat "$STATE/wait")" >&2 ;;
*[23]) echo "clientmountd: error: unknown" >&2 ;;
esac
exit "$code"`,
	"systemctl": `case $1 in is-active) echo failed; exit 3 ;; *) exit "$(cat "$STATE/systemctl.code" 2>/dev/null || echo 0)" ;; esac`,
	// As flux-job(1) and flux-resource(1) of flux-core describe them.
	"flux": `grep -qsx "$1 $2" "$STATE/refuse" && { echo "flux-$1: ERROR: Operation not permitted" >&2; exit 1; }
case "$1 $2" in
"job info") cat "$STATE/jobspec" ;;
"job id") [ "$3 $4" = "--to=dec f23BrE5gB" ] && echo 75497472000 ;;
"job raise") ;;
"resource drain")
  case $3 in
  --update) [ -e "$STATE/drained" ] || echo "$5" >"$STATE/drained" ;;
  --no-header) cat "$STATE/drained" 2>/dev/null || : ;;
  *) exit 1 ;;
  esac ;;
"resource undrain") rm "$STATE/drained" ;;
*) exit 1 ;;
esac`,
	// As Slurm 22.05 prints it.
	"scontrol": `grep -qsx "$1" "$STATE/refuse" && { echo "slurm_load_node error: Unable to contact slurm controller (connect failure)" >&2; exit 1; }
case "$1 $2 $3" in
"show node "*)
  echo "NodeName=$3 Arch=x86_64 CoresPerSocket=1 "
  if [ -e "$STATE/drained" ]; then
    echo "   State=IDLE+DRAIN ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A"
    echo "   Reason=$(cat "$STATE/drained") [root@2026-11-30T11:04:57]"
  else
    echo "   State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A"
  fi ;;
"update NodeName="*" State=DRAIN") echo "${4#Reason=}" >"$STATE/drained" ;;
"update NodeName="*" State=UNDRAIN") rm "$STATE/drained" ;;
"update JobId="*) ;;
"requeuehold "*) ;;
*) exit 1 ;;
esac`,
	"squeue":  `cat "$STATE/squeue"`,
	"scancel": "",
}

// site is a node with the scripts for workload managers, as a site installs them.
type site struct {
	t   *testing.T
	dir string
	env []string // of the workload manager
}

// newSite installs the scripts with these settings, which replace lines of functions.sh.
func newSite(t *testing.T, env []string, settings ...string) site {
	t.Helper()
	require.Tool(t, "bash", "jq")
	s := site{t: t, dir: t.TempDir(), env: env}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	s.write("bin/logger", "#!"+bash+"\necho \"$*\" >&2\n")
	for name, body := range fakes {
		s.write("bin/"+name, "#!"+bash+"\n{ printf '%s' \"${0##*/}\"; printf ' <%s>' \"$@\"; echo; } >>\"$STATE/calls\"\n"+body+"\n")
	}
	for _, file := range tree(t, "packaging/examples/workload-manager") {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(file) == "functions.sh" {
			text = []byte(change(t, string(text), append(settings, "PATH="+s.dir+"/bin:$PATH", "in_service="+s.dir+"/state/in-service")...))
		}
		s.write(filepath.Base(file), string(text))
	}
	s.write("state/jobspec", `{"attributes": {"system": {"dw": ["#DW jobdw type=xfs capacity=1TiB name=a"]}}}`)
	return s
}

// change replaces the lines of a shell script that set the variables of the settings.
func change(t *testing.T, text string, settings ...string) string {
	t.Helper()
	for _, setting := range settings {
		name, _, _ := strings.Cut(setting, "=")
		_, rest, ok := strings.Cut(text, "\n"+name+"=")
		if !ok {
			t.Fatalf("functions.sh does not set %s", name)
		}
		old, _, _ := strings.Cut(rest, "\n")
		text = strings.Replace(text, "\n"+name+"="+old+"\n", "\n"+setting+"\n", 1)
	}
	return text
}

func (s site) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = executable.Write(path, []byte(text))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// state returns the content of a file that the fakes write, without the last newline, or "".
func (s site) state(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, "state", name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return strings.TrimSuffix(string(data), "\n")
}

// run runs a script. It returns the new calls of the fakes and the exit code.
func (s site) run(script string) (calls string, code int) {
	s.t.Helper()
	s.write("state/calls", "")
	cmd := exec.Command(filepath.Join(s.dir, script))
	cmd.Env = append([]string{"STATE=" + filepath.Join(s.dir, "state")}, s.env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	s.t.Logf("%s: exit code %d\n%s%s", script, cmd.ProcessState.ExitCode(), s.state("calls"), errs.String())
	return s.state("calls"), cmd.ProcessState.ExitCode()
}

// The environment in which each workload manager runs the scripts.
var (
	fluxJob  = []string{"FLUX_JOB_ID=f23BrE5gB"}
	slurmJob = []string{"SLURM_JOB_ID=4711", "SLURMD_NODENAME=compute-01"}
)

// hostile is a reason with everything that a shell, a terminal or a table could misunderstand.
var hostile = "unmount of /mnt/nnf/$(touch pwned)`id`-0 is \"stuck\" \\ 'x';\x1b[31m\n" + strings.Repeat("é", 3000)

// A prolog waits for the mounts of the job. Only a problem of the node drains it; a job whose
// storage is late for another reason does not start, with the reason.
func TestProlog(t *testing.T) {
	const (
		info      = "flux <job> <info> <f23BrE5gB> <jobspec>\n"
		id        = info + "flux <job> <id> <--to=dec> <f23BrE5gB>\n"
		fluxWait  = id + "clientmountd <wait> <--workflow> <fluxjob-75497472000> <--for> <mounted> <--timeout> <5m>"
		slurmAsks = "clientmountd <wait> <--workflow> <bb4711> <--for> <unmounted> <--timeout> <0s>"
		slurmWait = slurmAsks + "\nclientmountd <wait> <--workflow> <bb4711> <--for> <mounted> <--timeout> <5m>"
		health    = "\nclientmountd <health> <--drain-only>"
		why       = "mount of /mnt/nnf/x without its device for 5m"
		late      = "not there within 5m0s: " + why
		stuck     = "mount of /mnt/nnf/x stuck for 6m: lvchange (pid 7) waits in the kernel"
	)
	node := hostname(t)
	for name, c := range map[string]struct {
		env    []string
		files  map[string]string // of the state
		calls  string
		code   int
		reason string // for which the node is drained
	}{
		"Flux, no storage":    {fluxJob, map[string]string{"jobspec": `{"attributes": {"system": {}}}`}, strings.TrimSpace(info), 0, ""},
		"Flux, mounted":       {fluxJob, nil, fluxWait, 0, ""},
		"Flux, unknown":       {fluxJob, map[string]string{"wait.code": "3"}, fluxWait, 0, ""},
		"Flux, late":          {fluxJob, map[string]string{"wait.code": "5", "wait": why}, fluxWait + health + "\nflux <job> <raise> <--type=prolog> <--severity=0> <f23BrE5gB> <clientmountd on " + node + ": " + late + ">", 0, ""},
		"Flux, no permission": {fluxJob, map[string]string{"wait.code": "5", "wait": why, "refuse": "job raise"}, fluxWait + health + "\nflux <job> <raise> <--type=prolog> <--severity=0> <f23BrE5gB> <clientmountd on " + node + ": " + late + ">", 1, ""},
		"Flux, node":          {fluxJob, map[string]string{"wait.code": "5", "wait": why, "health.code": "1", "health": stuck}, fluxWait + health + "\nflux <resource> <drain> <--update> <" + node + "> <clientmountd: " + stuck + ">", 1, "clientmountd: " + stuck},
		"Slurm, no storage":   {slurmJob, map[string]string{"absent": ""}, slurmAsks, 0, ""},
		"Slurm, mounted":      {slurmJob, nil, slurmWait, 0, ""},
		"Slurm, refused":      {slurmJob, map[string]string{"wait.code": "1", "wait": why}, slurmWait + health + "\nscontrol <update> <JobId=4711> <AdminComment=clientmountd on compute-01: " + late + ">\nscontrol <requeuehold> <4711>", 0, ""},
		"Slurm, interactive": {slurmJob, map[string]string{"wait.code": "5", "wait": why, "refuse": "requeuehold", "squeue": "RUNNING             \n"}, slurmWait + health +
			"\nscontrol <update> <JobId=4711> <AdminComment=clientmountd on compute-01: " + late + ">\nscontrol <requeuehold> <4711>\nsqueue <--noheader> <--jobs=4711> <--Format=State>\nscancel <4711>", 0, ""},
		"Slurm, other node was first": {slurmJob, map[string]string{"wait.code": "5", "wait": why, "refuse": "requeuehold", "squeue": "COMPLETING          \n"}, slurmWait + health +
			"\nscontrol <update> <JobId=4711> <AdminComment=clientmountd on compute-01: " + late + ">\nscontrol <requeuehold> <4711>\nsqueue <--noheader> <--jobs=4711> <--Format=State>", 0, ""},
		"Slurm, node": {slurmJob, map[string]string{"wait.code": "5", "wait": why, "health.code": "1", "health": stuck}, slurmWait + health +
			"\nscontrol <show> <node> <compute-01>\nscontrol <update> <NodeName=compute-01> <State=DRAIN> <Reason=clientmountd: " + stuck + ">", 1, "clientmountd: " + stuck},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.env)
			for file, text := range c.files {
				s.write("state/"+file, text)
			}
			calls, code := s.run("prolog.sh")
			if calls != c.calls || code != c.code || s.state("drained") != c.reason {
				t.Errorf("exit code %d, want %d; drained for %q, want %q; calls\n%s\nwant\n%s", code, c.code, s.state("drained"), c.reason, calls, c.calls)
			}
		})
	}
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// An epilog waits until the storage is unmounted, and drains the node for a problem that does not
// heal without help. If the workload manager refuses that, the script fails, and the workload
// manager drains the node with a reason of its own.
func TestEpilog(t *testing.T) {
	for manager, env := range map[string][]string{"Flux": fluxJob, "Slurm": slurmJob} {
		for name, c := range map[string]struct {
			wait, health string
			refuse       string
			code         int
			drained      bool
		}{
			"unmounted":         {"0", "0", "", 0, false},
			"busy":              {"5", "0", "", 0, false},
			"unknown":           {"5", "3", "", 0, false},
			"stuck":             {"5", "1", "", 0, true},
			"failed":            {"1", "1", "", 0, true},
			"cannot be asked":   {"2", "1", "", 0, false},
			"cannot be drained": {"5", "1", "show\nresource drain", 1, false},
		} {
			t.Run(manager+", "+name, func(t *testing.T) {
				s := newSite(t, env)
				for file, text := range map[string]string{"wait.code": c.wait, "wait": hostile, "health.code": c.health, "health": hostile, "refuse": c.refuse} {
					s.write("state/"+file, text)
				}
				calls, code := s.run("epilog.sh")
				drained := s.state("drained")
				if code != c.code || (drained != "") != c.drained || strings.Count(calls, " <unmounted> <--timeout> <10m>") != 1 {
					t.Errorf("exit code %d, drained for %q", code, drained)
				}
				if c.drained && (!strings.HasPrefix(drained, "clientmountd: unmount of /mnt/nnf/ (touch pwned) id -0 is  stuck ") || len(drained) > 200 || strings.ContainsFunc(drained, func(r rune) bool { return r < ' ' || r > '~' })) {
					t.Errorf("the reason is %q", drained)
				}
			})
		}
	}
}

// The health check drains for a problem of the storage, and ends only its own drain, when all
// storage is fine. While the node is in service it does not call the workload manager.
func TestHealthCheck(t *testing.T) {
	const stuck = "unmount of /mnt/nnf/x stuck for 16m"
	for manager, env := range map[string][]string{"Flux": nil, "Slurm": slurmJob[1:]} {
		t.Run(manager, func(t *testing.T) {
			s := newSite(t, env)
			check := func(when, health string, code int, drained string) (calls string) {
				t.Helper()
				s.write("state/health", stuck)
				s.write("state/health.code", health)
				calls, got := s.run("health.sh")
				if got != code || s.state("drained") != drained {
					t.Errorf("%s: exit code %d, want %d; drained for %q, want %q", when, got, code, s.state("drained"), drained)
				}
				return calls
			}
			asked := func(calls string) bool { return strings.Contains(calls, "scontrol") || strings.Contains(calls, "flux") }

			if calls := check("after boot", "0", 0, ""); !asked(calls) {
				t.Error("after boot, the workload manager is not asked: the node would stay drained")
			}
			if calls := check("healthy", "0", 0, ""); asked(calls) {
				t.Error("the check of a healthy node calls the workload manager")
			}
			check("unknown", "3", 0, "")
			check("stuck", "1", 0, "clientmountd: "+stuck)
			check("still stuck", "1", 0, "clientmountd: "+stuck)
			check("unknown", "3", 0, "clientmountd: "+stuck)
			s.write("state/refuse", "update\nresource undrain")
			check("the workload manager is away", "0", 0, "clientmountd: "+stuck)
			s.write("state/refuse", "")
			check("fine", "0", 0, "")

			s.write("state/drained", "replace the memory")
			check("drained by an administrator", "1", 0, "replace the memory")
			check("drained by an administrator, fine", "0", 0, "replace the memory")

			s.write("state/drained", "")
			os.Remove(filepath.Join(s.dir, "state/drained"))
			s.write("state/refuse", "show\nresource drain")
			check("the workload manager is away", "1", 1, "")
		})
		t.Run(manager+", without undrain", func(t *testing.T) {
			s := newSite(t, env, "undrain=no")
			s.write("state/drained", "clientmountd: "+stuck)
			if calls, code := s.run("health.sh"); code != 0 || s.state("drained") == "" || strings.Contains(calls, "scontrol") || strings.Contains(calls, "flux") {
				t.Errorf("exit code %d, calls %s", code, calls)
			}
		})
	}
}

// A node whose journal cannot be written to behaves as any other: no job fails because of that, and no
// node is drained.
func TestNoLogger(t *testing.T) {
	const stuck = "unmount of /mnt/nnf/x stuck for 16m"
	for manager, env := range map[string][]string{"Flux": fluxJob, "Slurm": slurmJob} {
		for _, c := range []struct{ script, wait, health, drained string }{
			{"health.sh", "0", "3", ""},
			{"health.sh", "0", "1", "clientmountd: " + stuck},
			{"prolog.sh", "3", "0", ""},
			{"prolog.sh", "3", "3", ""},
			{"epilog.sh", "5", "3", ""},
			{"epilog.sh", "5", "1", "clientmountd: " + stuck},
		} {
			t.Run(manager+", "+c.script+", wait "+c.wait+", health "+c.health, func(t *testing.T) {
				s := newSite(t, env)
				s.write("bin/logger", "#!/bin/sh\nexit 1\n")
				for file, text := range map[string]string{"wait.code": c.wait, "wait": stuck, "health.code": c.health, "health": stuck} {
					s.write("state/"+file, text)
				}
				if calls, code := s.run(c.script); code != 0 || s.state("drained") != c.drained || strings.Contains(calls, "requeuehold") || strings.Contains(calls, "raise") {
					t.Errorf("exit code %d, drained for %q, want %q; calls\n%s", code, s.state("drained"), c.drained, calls)
				}
			})
		}
	}
}

// With stop_daemon, the daemon stops after the storage is mounted, and starts before the storage is
// unmounted. A daemon that does not start drains the node, because the storage stays mounted.
func TestStopDaemonDuringJobs(t *testing.T) {
	for manager, env := range map[string][]string{"Flux": fluxJob, "Slurm": slurmJob} {
		t.Run(manager, func(t *testing.T) {
			s := newSite(t, env, "stop_daemon=yes")
			s.write("bin/timeout", "#!/bin/sh\nshift; exec \"$@\"\n")
			if calls, code := s.run("prolog.sh"); code != 0 || !strings.HasSuffix(calls, "\nsystemctl <stop> <clientmountd.service>") {
				t.Errorf("exit code %d, calls %s", code, calls)
			}
			if calls, code := s.run("epilog.sh"); code != 0 || !strings.HasPrefix(calls, "systemctl <start> <clientmountd.service>\n") || !strings.Contains(calls, "<unmounted>") {
				t.Errorf("exit code %d, calls %s", code, calls)
			}
			s.write("state/systemctl.code", "1")
			if calls, code := s.run("prolog.sh"); code != 0 {
				t.Errorf("a daemon that keeps running: exit code %d, calls %s", code, calls)
			}
			if calls, code := s.run("epilog.sh"); code != 0 || !strings.HasPrefix(s.state("drained"), "clientmountd: the daemon cannot be started") {
				t.Errorf("exit code %d, calls %s", code, calls)
			}
		})
	}
	s := newSite(t, fluxJob)
	if calls, _ := s.run("prolog.sh"); strings.Contains(calls, "systemctl") {
		t.Error("by default, the prolog stops the daemon")
	}
}

// A name of a workflow that is not valid is not used.
func TestWorkflowNames(t *testing.T) {
	for name, valid := range map[string]bool{"bb1": true, "a-b.c": true, "--for": false, "a b": false, "A": false, "a/b": false, "$(id)": false, "": false, "a\nb": false} {
		s := newSite(t, slurmJob)
		s.write("slurm.sh", "job=1 node=compute-01\nexpected() { true; }\nworkflow_of_job() { echo '"+name+"'; }\n")
		calls, code := s.run("prolog.sh")
		if code != 0 || (calls != "") != valid {
			t.Errorf("%q: exit code %d, calls %s", name, code, calls)
		}
	}
}

// The check for NHC fails with the verdict only for a problem that needs a drain. die is a function
// of NHC.
func TestNHC(t *testing.T) {
	for health, want := range map[string]string{"0": "passed", "3": "passed", "1": "die <1> <check_clientmountd:  unmount of /mnt/nnf/x stuck>\nfailed"} {
		s := newSite(t, nil)
		s.write("state/health", "unmount of /mnt/nnf/x stuck")
		s.write("state/health.code", health)
		cmd := exec.Command("bash", "-c", `PATH=$1:$PATH; die() { printf 'die <%s> <%s>\n' "$@"; }; . "$2"; if check_clientmountd; then echo passed; else echo failed; fi`,
			"nhc", filepath.Join(s.dir, "bin"), filepath.Join(root, "packaging/examples/nhc/clientmountd.nhc"))
		cmd.Env = append(os.Environ(), "STATE="+filepath.Join(s.dir, "state"))
		if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("health exits with %s: %v\n%s", health, err, out)
		}
	}
}
