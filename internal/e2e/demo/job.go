package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

const (
	jobUser = 1000
	// rate lets the screen show how a copy goes on; a real one has gigabytes to copy.
	rate     = "* rate=3M"
	slowRate = "*/again/* rate=256k"
)

// job is the second half: a user's job copies from its storage to a global file
// system.
type job struct {
	*play
	lab.CopyJob
	user   int
	socket string
	global string // where the global file system is on this machine
	mover  *lab.Daemon
	rabbit *lab.Rabbit
}

func (p *play) second() error {
	j := &job{play: p, user: jobUser, socket: filepath.Join(p.Dir, "nnf-dm.sock"), global: filepath.Join(p.Dir, "global")}
	if p.Features.UserNamespace {
		j.user = 0 // the only one that there is
	}
	j.CopyJob = lab.CopyJob{
		Node: nodeName, Workflow: "job8", UID: j.user, GID: j.user,
		Mount: filepath.Join(p.MountBase, lab.WorkflowUID+"-0"), Global: "/lus/global",
	}
	p.out.title("\nnnf-dm, from a job's command to its files in the global file system")
	if p.Features.UserNamespace {
		p.out.note("Without root the job's user is the namespace's root, which nnf-dm is told to allow.")
	}
	p.out.note("Stand-ins: an xfs or tmpfs for gfs2, which the test build of clientmountd has been told, and the rabbit with its dcp.")
	return p.acts(j.storage, j.daemons, j.copy, j.cancel, j.end)
}

// storage gives the job its file system, by clientmountd as before.
func (j *job) storage() error {
	if err := j.Apply(j.ctx, j.cluster.Client); err != nil {
		return err
	}
	stands := "CLIENTMOUNTD_TEST_FSTYPES=gfs2=xfs"
	if j.Features.UserNamespace {
		stands = "CLIENTMOUNTD_TEST_FSTYPES=gfs2=tmpfs"
	}
	if _, err := j.startDaemon(stands); err != nil {
		return err
	}
	began := time.Now()
	o := j.ClientMount(nodeName, j.Mount, lab.ClientMountSpec{Profile: profile})
	j.object = o.Name()
	if _, err := j.cluster.Create(j.ctx, o); err != nil {
		return err
	}
	if _, err := j.await(func(o lab.Object) bool { return o.Ready("mounted") }); err != nil {
		return err
	}
	j.out.good("mounted", "by clientmountd: the job's gfs2 at "+j.Mount, time.Since(began))
	t, err := plant(filepath.Join(j.Mount, "results"), j.user)
	if err == nil {
		j.out.block("the job has written " + t.String() + " to results/")
	}
	return err
}

// daemons starts nnf-dm and the rabbit, which sees the same storage.
func (j *job) daemons() (err error) {
	alice := filepath.Join(j.global, "alice")
	if err := errors.Join(os.Chmod(j.Dir, 0o711), os.MkdirAll(alice, 0o755), os.Chown(alice, j.user, j.user)); err != nil {
		return err
	}
	if j.Features.UserNamespace { // no groups can be dropped there
		change := lab.Object{"data": map[string]any{"setprivCommand": "env"}}
		if _, err := j.cluster.Patch(j.ctx, "NnfDataMovementProfile", "nnf-system", "default", change); err != nil {
			return err
		}
	}
	if j.rabbit, err = j.StartRabbit(j.cluster, map[string]string{j.OnRabbit(): j.Mount, j.Global: j.global}); err != nil {
		return err
	}
	if err := j.rabbit.Faults(slowRate, rate); err != nil {
		return err
	}
	config := filepath.Join(j.Dir, "nnf-dm.toml")
	text := fmt.Sprintf("version = 1\n[access]\nallow_root_copies = %t\n", j.user == 0)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(j.cluster.Address())
	if err != nil {
		return err
	}
	program := os.Getenv("NNF_DM")
	if program == "" {
		return errors.New("there is no nnf-dm beside this program: make build-daemon")
	}
	if j.mover, err = j.StartDaemon(lab.DaemonOptions{Binary: program, Args: []string{
		"--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=" + filepath.Join(j.cluster.Dir, "nnf-dm", "service.token"), "--service-cert-file=" + j.cluster.CertFile(),
		"--node-name=" + nodeName, "--socket=" + j.socket, "--config=" + config, "--log-format=json",
	}}); err != nil {
		return err
	}
	took, err := j.mover.WaitReady(j.ctx)
	if err != nil {
		return fmt.Errorf("nnf-dm did not become ready: %w%s", err, tail(j.mover))
	}
	u, err := j.mover.Usage()
	if err != nil {
		return err
	}
	j.out.good("nnf-dm", fmt.Sprintf("READY on %s, %.1f MB of memory (%.1f MB its own)", j.socket, float64(u.RSS)/1e6, float64(u.Anonymous)/1e6), took)
	return nil
}

// end takes the job's storage away and stops what was started for it.
func (j *job) end() error {
	began := time.Now()
	if err := j.stop("nnf-dm", j.mover); err != nil {
		return err
	}
	if err := j.rabbit.Stop(); err != nil {
		return fmt.Errorf("the rabbit: %w", err)
	}
	if err := j.want("unmounted"); err != nil {
		return err
	}
	if _, err := j.await(func(o lab.Object) bool { return o.Ready("unmounted") }); err != nil {
		return err
	}
	if err := j.remove(); err != nil {
		return err
	}
	if err := j.stop("clientmountd", j.daemon); err != nil {
		return err
	}
	j.out.good("ended", "storage unmounted, ClientMount gone, nnf-dm and clientmountd exited with code 0", time.Since(began))
	return nil
}
