package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
	"github.com/compute-daemons/compute-daemons/internal/timeline/sample"
)

// reporter is a fake clientmountd that prints documents which the test has written.
const reporter = `#!/bin/sh
F=$R/run/fake
case $1 in
timeline)
  [ "$2 $4 $5" = "--workflow -o json" ] || exit 2
  [ -e "$F/timeline.$3" ] || set -- "$1" "$2" none
  cat "$F/timeline.$3" ;;
health)
  [ "$2 $3" = "-o json" ] || exit 2
  cat "$F/health$4" && exit "$(cat "$F/health$4.code")" ;;
doctor)
  [ "$2 $3" = "-o json" ] || exit 2
  [ "$4" != --offline ] || shift
  if [ "$4" = --bundle ]; then (set -C; cat "$F/bundle" >"$5") || exit 9; fi
  cat "$F/doctor" && exit "$(cat "$F/doctor.code")" ;;
*) exit 2 ;;
esac
`

// install writes a fake clientmountd and its documents to a node of the fleet.
func install(ts *testscript.TestScript, node string, documents map[string][]byte) {
	dir := filepath.Join(ts.MkAbs("fleet"), node)
	for name, data := range documents {
		ts.Check(os.WriteFile(filepath.Join(dir, "run/fake", name), data, 0o600))
	}
	ts.Check(executable.Write(filepath.Join(dir, product.BinDirectory, "clientmountd"), []byte(reporter)))
}

// timelines NODE... gives nodes of the fleet the timeline of the workflow sample.Workflow. The
// document is one that clientmountd would print.
func timelines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: timelines NODE...")
	}
	for i, node := range args {
		doc := sample.Node(node, 41+i)
		documents := map[string][]byte{}
		for name, lives := range map[string][]mountstate.Life{sample.Workflow: doc.Lives, "none": {}} {
			doc.Lives = lives
			data, err := json.Marshal(doc)
			ts.Check(err)
			documents["timeline."+name] = data
		}
		install(ts, node, documents)
	}
}

// health STATE NODE... sets the state of the mounts of nodes: fine, stuck, busy, or unknown. The
// processes, ages and paths are different on each node.
func health(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: health STATE NODE...")
	}
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for i, node := range args[1:] {
		since := now.Add(-time.Duration(16+i) * time.Minute)
		name := fmt.Sprintf("job%d-0-computes", i)
		m := mountstate.Mount{ClientMount: name, Workflow: fmt.Sprintf("job%d", i), Path: fmt.Sprintf("/mnt/nnf/6f1c2b9e-0d3a-4a55-9f10-%012d-0", i), Since: since, Phase: mountstate.PhaseUnmount}
		switch args[0] {
		case "fine":
			m.State, m.Phase = mountstate.Mounted, ""
		case "stuck":
			m.State, m.Commands = mountstate.Stuck, []mountstate.Command{{PID: 3211 + i, Program: "umount", Started: since, Kernel: true}}
		case "busy":
			m.State, m.Holders = mountstate.Busy, []mountstate.Holder{{PID: 40 + i, UID: uint32(1000 + i), Command: "bash", Text: fmt.Sprintf("pid %d (bash, uid %d)", 40+i, 1000+i)}}
		}
		doc := &mountstate.Mounts{Version: mountstate.MountsVersion, Node: node, Time: now, Daemon: mountstate.Daemon{Running: true, API: mountstate.APIConnected}, Mounts: []mountstate.Mount{m}}
		documents := map[string][]byte{}
		for _, flag := range []string{"", "--drain-only"} {
			h, code := mountstate.Evaluate(doc, mountstate.DefaultGrace(), now), "0"
			if args[0] == "unknown" {
				h, code = mountstate.UnknownHealth(errors.New("open /run/clientmountd: permission denied"), now), "3"
			}
			if flag != "" {
				h.OnlyDrain()
			}
			if h.Verdict == mountstate.VerdictProblem {
				code = "1"
			}
			data, err := json.Marshal(h)
			ts.Check(err)
			documents["health"+flag], documents["health"+flag+".code"] = data, []byte(code)
		}
		install(ts, node, documents)
	}
}

// doctor STATE NODE... sets the result of the checks of nodes: ok, warn (the token expires soon) or fail
// (a command hangs, another process and path on each node). Each node also has a support bundle.
func doctor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: doctor STATE NODE...")
	}
	for i, node := range args[1:] {
		list := []checklist.Check{{Name: "configuration", State: checklist.OK, Text: "/etc/clientmountd/config.toml; the name of this node is " + node}}
		code := 0
		switch one := (checklist.Check{State: checklist.State(args[0])}); one.State {
		case checklist.Warn:
			one.Name, one.Text, one.Hint = "credentials", "the token expires in 5h12m0s", "renew it with nnf-deploy credentials; the daemon uses a new file without a restart"
			list = append(list, one)
		case checklist.Fail:
			code, one.Name = 1, "commands"
			one.Text = fmt.Sprintf("umount /mnt/nnf/job%d-0 (pid %d) has been running for %dm%ds and waits in the kernel in xfs_log_force", i, 3211+i, 16+i, i)
			one.Hint = fmt.Sprintf("see /proc/%d/stack; check the device, the servers or the locks that it waits for; if the command never finishes, drain the node and reboot it", 3211+i)
			list = append(list, one)
		}
		var doc, bundle bytes.Buffer
		z := gzip.NewWriter(&bundle)
		w := tar.NewWriter(z)
		ts.Check(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "clientmountd-doctor/CONTENTS", Size: int64(len(node)), Mode: 0o600}))
		_, err := w.Write([]byte(node))
		ts.Check(errors.Join(err, w.Close(), z.Close(), checklist.JSON(&doc, "clientmountd", list)))
		install(ts, node, map[string][]byte{"doctor": doc.Bytes(), "doctor.code": []byte(strconv.Itoa(code)), "bundle": bundle.Bytes()})
	}
}

// TestReportGuide runs the commands of docs/nnf-deploy.md that only report, on fake nodes. A wrapper
// adds the flags that replace ssh and the cluster.
func TestReportGuide(t *testing.T) {
	blocks := manual.Commands(t, "../..", "docs/nnf-deploy.md", "cmd/nnf-deploy TestReportGuide")
	guide := strings.ReplaceAll(strings.Join(blocks, ""), "my-job", sample.Workflow)
	steps := "fleet compute-03 compute-17\ndoctor ok compute-03 compute-17\nhealth fine compute-03 compute-17\ntimelines compute-03 compute-17\n" +
		"chmod 755 wrapper/nnf-deploy\nenv PATH=$WORK/wrapper:$PATH\nexec sh -eu guide.sh\n" +
		"! stderr error:\nstdout 'Workflow " + sample.Workflow + ": 2 of 2 nodes have a timeline'\nstderr '2 of 2 nodes are fine'\nstderr '2 of 2 nodes have no failed check'\n" +
		"exists " + sample.Workflow + ".html case-4711/compute-03.tar.gz case-4711/compute-17.tar.gz\n" +
		"-- wrapper/nnf-deploy --\n#!/bin/sh\nPATH=${PATH#*:}\nexec nnf-deploy \"$@\" --ssh fakessh --system-config system.yaml\n-- guide.sh --\n" + guide
	script.RunText(t, scripts(), steps)
}
