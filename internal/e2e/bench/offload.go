package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Users of the node. The job is one user's; the others have nothing to do with it.
const (
	jobUser = 1001
	crowder = 2002
)

// offload is the scene of nnf-dm: a job on its compute, as the rabbit software
// leaves it when the job starts. The bench itself plays the rabbit.
type offload struct {
	*bench
	job     lab.CopyJob
	daemons int
}

func (b *bench) newOffload() (*offload, error) {
	s := &offload{bench: b, job: lab.CopyJob{
		Node: "compute-dm", Workflow: "copyjob", UID: jobUser, GID: jobUser,
		Mount: "/mnt/nnf/" + lab.WorkflowUID + "-0", Global: "/lus/global",
	}}
	// The job's user must get to the sockets.
	if err := os.Chmod(s.Dir, 0o711); err != nil {
		return nil, err
	}
	if err := s.job.Apply(b.ctx, b.cluster.Client); err != nil {
		return nil, err
	}
	return s, s.job.Mounted(b.ctx, b.cluster.Client, s.job.ClientMount(s.job.Node, s.job.Mount, lab.ClientMountSpec{}))
}

// mover is one nnf-dm with the path of its socket.
type mover struct {
	*lab.Daemon
	socket string
}

// commandLine is that of the released build with default settings. Address and
// certificate are of the API server, or of a proxy.
func (s *offload) commandLine(address, cert string, flags ...string) (lab.DaemonOptions, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return lab.DaemonOptions{}, err
	}
	token := filepath.Join(s.cluster.Dir, "nnf-dm", "service.token")
	args := append([]string{
		"--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=" + token, "--service-cert-file=" + cert, "--node-name=" + s.job.Node, "--log-format=json",
	}, flags...)
	return lab.DaemonOptions{Binary: os.Getenv("NNF_DM"), Args: args}, nil
}

// mover starts a daemon with a socket of its own and waits for READY.
func (s *offload) mover(address, cert, config string) (*mover, error) {
	s.daemons++
	m := &mover{socket: filepath.Join(s.Dir, fmt.Sprintf("nnf-dm-%d.sock", s.daemons))}
	o, err := s.commandLine(address, cert, "--config="+config, "--socket="+m.socket)
	if err != nil {
		return nil, err
	}
	if m.Daemon, err = s.StartDaemon(o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	if _, err := m.WaitReady(ctx); err != nil {
		m.Kill9()
		return nil, fmt.Errorf("nnf-dm did not become ready: %w: %v", err, m.Log())
	}
	return m, nil
}

// plain starts one that speaks to the API server itself, with the defaults.
func (s *offload) plain() (*mover, error) {
	return s.mover(s.cluster.Address(), s.cluster.CertFile(), os.DevNull)
}

func (s *offload) workflow() *pb.DataMovementWorkflow {
	return &pb.DataMovementWorkflow{Name: s.job.Workflow, Namespace: "default"}
}

// create makes a data movement and returns its uid.
func (s *offload) create(c pb.DataMoverClient) (string, error) {
	r, err := c.Create(s.ctx, &pb.DataMovementCreateRequest{
		Workflow: s.workflow(), Source: s.job.Mount + "/out/", Destination: s.job.Global + "/alice/", Slots: -1, MaxSlots: -1,
	})
	if err == nil && r.Status != pb.DataMovementCreateResponse_SUCCESS {
		err = fmt.Errorf("%v: %s", r.Status, r.Message)
	}
	if err != nil {
		return "", fmt.Errorf("create: %w", err)
	}
	return r.Uid, nil
}

// poll asks for the status, and waits for the end as long as is said.
func (s *offload) poll(c pb.DataMoverClient, uid string, seconds int64) (*pb.DataMovementStatusResponse, error) {
	r, err := c.Status(s.ctx, &pb.DataMovementStatusRequest{Workflow: s.workflow(), Uid: uid, MaxWaitTime: seconds})
	if err == nil && r.Status == pb.DataMovementStatusResponse_NOT_FOUND {
		err = fmt.Errorf("%s is not found", uid)
	}
	return r, err
}

// write gives a data movement a status, as the rabbit does.
func (s *offload) write(uid string, status map[string]any) error {
	path := lab.Path("NnfDataMovement", lab.CopyRabbit, uid) + "/status"
	_, err := s.cluster.PatchPath(s.ctx, path, "application/merge-patch+json", lab.Object{"status": status})
	return err
}

// stamp is a time as Kubernetes writes it, with fractions of a second.
func stamp() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000000Z") }
