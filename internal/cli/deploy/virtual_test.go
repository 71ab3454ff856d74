package deploy

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// virtualFleet is a fleet whose nodes exist in memory and whose delays pass in virtual time
// (testing/synctest). It replaces the process of ssh: everything above is the real code. A node
// speaks the protocol of a session and has the state that the scripts report and change.
type virtualFleet struct {
	nodes  map[string]*virtualNode
	open   atomic.Int64 // running sessions
	most   atomic.Int64 // the largest number of sessions at the same time
	closed atomic.Int64 // finished sessions
}

// virtualNode is one node. Only one session changes it at a time.
type virtualNode struct {
	dead  bool    // no host has its address
	pace  float64 // the factor of its delays
	files map[string]virtualFile
	bins  []string // daemons that run
	timer bool     // whether the timer of nnf-dm is enabled
}

// virtualFile is a file; claims is the middle part of a token.
type virtualFile struct{ sum, mode, owner, claims string }

// Delays of a node with a pace of 1: those of a compute node with an idle processor, whose
// sshd uses DNS and PAM.
const (
	virtualLogin   = 350 * time.Millisecond
	virtualScript  = 30 * time.Millisecond
	virtualProbe   = 450 * time.Millisecond
	virtualStaging = 800 * time.Millisecond
	virtualSwitch  = 2500 * time.Millisecond // the daemons restart and become ready
	virtualTimeout = 10 * time.Second        // ConnectTimeout
	virtualNetwork = 100 << 20               // bytes per second to a node
)

// newVirtualFleet returns a fleet without any installation. One node of 200 is dead, and one of 500
// takes twenty times as long as the others, whose delays are distributed log-normally.
func newVirtualFleet(count int) (*virtualFleet, []string) {
	f := &virtualFleet{nodes: map[string]*virtualNode{}}
	r := rand.New(rand.NewPCG(1, 2))
	var names []string
	for i := range count {
		name := fmt.Sprintf("compute-%05d", i+1)
		n := &virtualNode{pace: math.Exp(0.4 * r.NormFloat64()), dead: i%200 == 77, files: map[string]virtualFile{}}
		if i%500 == 123 {
			n.pace = 20
		}
		f.nodes[name] = n
		names = append(names, name)
	}
	return f, names
}

var virtualSession = regexp.MustCompile(`n=([0-9a-f]+);`)

// start is a remote.Start.
func (f *virtualFleet) start(ctx context.Context, _ string, args []string, stdout, stderr io.Writer) (io.WriteCloser, func() (int, error), error) {
	f.most.Store(max(f.most.Load(), f.open.Add(1)))
	in, feed := io.Pipe()
	s := &virtualConnection{ctx: ctx, node: f.nodes[args[len(args)-2]], name: args[len(args)-2], in: bufio.NewReader(in), out: stdout, errors: stderr}
	s.marker = "nnf-deploy:" + virtualSession.FindStringSubmatch(args[len(args)-1])[1]
	code, ended := 0, make(chan struct{})
	stop := context.AfterFunc(ctx, func() { in.CloseWithError(io.ErrClosedPipe) })
	go func() {
		defer close(ended)
		defer f.closed.Add(1)
		defer f.open.Add(-1)
		defer stop()
		defer in.Close()
		code = s.serve()
	}()
	return feed, func() (int, error) {
		<-ended
		return code, nil
	}, nil
}

// virtualConnection is one session.
type virtualConnection struct {
	ctx         context.Context
	node        *virtualNode
	name        string
	marker      string
	in          *bufio.Reader
	out, errors io.Writer
	lines       int
}

// pass waits for the delay of this node. It returns false if ssh is stopped in the meantime.
func (s *virtualConnection) pass(d time.Duration) bool {
	timer := time.NewTimer(time.Duration(float64(d) * s.node.pace))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		time.Sleep(5 * time.Millisecond) // ssh exits
		return false
	}
}

// serve returns the exit code of ssh.
func (s *virtualConnection) serve() int {
	const lost = 255
	if s.node.dead {
		s.node.pace = 1
		if s.pass(virtualTimeout) {
			fmt.Fprintf(s.errors, "ssh: connect to host %s port 22: Connection timed out\r\n", s.name)
		}
		return lost
	}
	if !s.pass(virtualLogin) {
		return lost
	}
	fmt.Fprintf(s.out, "\n%s ready\n", s.marker)
	if _, err := remote.ReadFrame(s.in, func(text string) string { return text }); err != nil || !s.pass(virtualScript) {
		return lost
	}
	fmt.Fprintf(s.out, "%s started\n", s.marker)
	if err := s.script(); err != nil {
		return lost
	}
	fmt.Fprintf(s.out, "%s exit 0 %d\n", s.marker, s.lines)
	return 0
}

// print prints a line of the script.
func (s *virtualConnection) print(fields ...string) {
	line := strings.Join(fields, "\t")
	s.lines++
	fmt.Fprintf(s.out, "%s %d %s\n", s.marker, len(line), line)
}

var errStopped = errors.New("ssh is stopped")

// script does what the probe script and the apply script do.
func (s *virtualConnection) script() error {
	line, err := s.in.ReadString('\n')
	if err != nil {
		return err
	}
	if size, apply := strings.CutPrefix(line, "archive "); apply {
		n, err := strconv.ParseInt(strings.TrimSpace(size), 10, 64)
		if err != nil {
			return err
		}
		return s.apply(n)
	}
	var request []string
	for line != "end\n" {
		request = append(request, strings.TrimSpace(line))
		if line, err = s.in.ReadString('\n'); err != nil {
			return err
		}
	}
	if !s.pass(virtualProbe) {
		return errStopped
	}
	s.probe(request)
	return nil
}

// probe prints the state of the node.
func (s *virtualConnection) probe(request []string) {
	s.print("nnf-deploy", "probe", "1")
	s.print("arch", "x86_64")
	s.print("systemd", "252")
	file := func(path string) {
		f, there := s.node.files[path]
		if !there {
			f = virtualFile{sum: "absent", mode: "-", owner: "-"}
		}
		s.print("file", f.sum, strings.TrimPrefix(f.mode, "0"), f.owner, path)
	}
	for _, r := range request {
		switch what, value, _ := strings.Cut(r, " "); what {
		case "file":
			file(value)
		case "claims":
			if f := s.node.files[value]; f.claims != "" {
				s.print("claims", value, f.claims)
			}
		case "stored":
			file(value)
		case "unit":
			properties := "LoadState=not-found\nActiveState=inactive\nUnitFileState=\nStatusText=\n"
			if path.Ext(value) == ".timer" {
				if s.node.timer {
					properties = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nStatusText=\n"
				}
			} else if slices.Contains(s.node.bins, strings.TrimSuffix(value, path.Ext(value))) {
				properties = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nStatusText=0 mounts\n"
			}
			s.print("unit", value, base64.StdEncoding.EncodeToString([]byte(properties)))
		case "daemon":
			value, _, _ = strings.Cut(value, " ")
			if slices.Contains(s.node.bins, value) {
				s.print("content", "/etc/systemd/system/"+value+".service", base64.StdEncoding.EncodeToString([]byte(systemd.WrittenBy(value)+"\n[Unit]\n[Service]\nExecStart=/usr/bin/"+value+"\n")))
			}
			file(product.Path(value))
			if _, there := s.node.files[product.Path(value)]; there {
				status, _ := json.Marshal(systemd.Status{Version: systemd.StatusVersion, ProgramVersion: "1.2.3", API: systemd.APIAnswers, Mounts: new(systemd.MountStatus), Renewal: &systemd.RenewalStatus{Enabled: true, Directory: "/var/lib/" + value}})
				s.print("version", value, "Version 1.2.3")
				s.print("status", value, base64.StdEncoding.EncodeToString(status))
			}
		}
	}
	for _, dir := range []string{product.StateDirectory, product.BinDirectory, product.ConfigDirectory} {
		s.print("space", dir, "20000000")
	}
	s.print("end")
}

// apply receives an archive and changes the node when nnf-deploy sends "go".
func (s *virtualConnection) apply(size int64) error {
	var manifest, run string
	sums, tokens := map[string]string{}, map[string]string{}
	archive := io.LimitReader(s.in, size)
	for t := tar.NewReader(archive); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		var text strings.Builder
		switch h.Name {
		case "manifest", "run", "sums":
			_, err = io.Copy(&text, t)
		default:
			if h.Size < 4096 {
				_, err = io.Copy(&text, t)
				if parts := strings.Split(text.String(), "."); err == nil && len(parts) == 3 && !strings.ContainsAny(parts[1], " \n") {
					tokens[h.Name] = parts[1]
				}
				break
			}
			_, err = io.Copy(io.Discard, t)
		}
		if err != nil {
			return err
		}
		switch h.Name {
		case "manifest":
			manifest = text.String()
		case "run":
			run = strings.TrimSpace(text.String())
		case "sums":
			for line := range strings.Lines(text.String()) {
				sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
				sums[name] = sum
			}
		}
	}
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return err
	}
	if !s.pass(time.Duration(size)*time.Second/virtualNetwork + virtualStaging) {
		return errStopped
	}
	s.print("staged")
	if line, err := s.in.ReadString('\n'); err != nil || line != "go "+run+"\n" {
		return errStopped
	}
	s.print("switching")
	s.node.change(manifest, sums, tokens)
	if !s.pass(virtualSwitch) {
		return errStopped // the switch continues on the node
	}
	s.print("result", run, "ok", "", "")
	for _, bin := range s.node.bins {
		s.print("status", bin+".service: 0 mounts")
	}
	s.print("confirm")
	_, err := s.in.ReadString('\n')
	return err
}

// intern keeps one copy of texts that many nodes have in common.
var intern sync.Map

func interned(text string) string {
	v, _ := intern.LoadOrStore(text, strings.Clone(text))
	return v.(string)
}

// change applies a manifest.
func (n *virtualNode) change(manifest string, sums, tokens map[string]string) {
	for line := range strings.Lines(manifest) {
		switch f := strings.Fields(line); f[0] {
		case "file", "binary":
			n.files[interned(f[4])] = virtualFile{interned(sums[f[1]]), interned(f[2]), interned(f[3]), strings.Clone(tokens[f[1]])}
		case "directory", "newdirectory":
			n.files[interned(f[3])] = virtualFile{sum: "directory", mode: interned(f[1]), owner: interned(f[2])}
		case "remove":
			delete(n.files, f[1])
		case "enable-now", "disable-now":
			n.timer = f[0] == "enable-now"
		case "unit":
			if !slices.Contains(n.bins, f[1]) {
				n.bins = append(n.bins, interned(f[1]))
			}
		}
	}
}

// virtualAPI is an API server in memory, with the accounts of all nodes. It answers after a delay in
// virtual time.
type virtualAPI struct {
	ca                                        string
	requests, tokens, accounts, running, most atomic.Int64
}

func newVirtualAPI(t *testing.T) *virtualAPI {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(crand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &virtualAPI{ca: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func (a *virtualAPI) reset() {
	for _, n := range []*atomic.Int64{&a.requests, &a.tokens, &a.accounts, &a.most} {
		n.Store(0)
	}
}

// virtualToken returns a token of an account. It expires after life; 0: it does not expire.
func virtualToken(namespace, name string, life time.Duration) string {
	claims := map[string]any{"sub": product.Account{Name: name, Namespace: namespace}.User()}
	if life > 0 {
		claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Add(life).Unix()
		claims["kubernetes.io"] = map[string]any{"serviceaccount": map[string]any{"name": name, "uid": namespace + "-" + name}}
	}
	data, _ := json.Marshal(claims)
	return "e30." + base64.RawURLEncoding.EncodeToString(data) + ".signature"
}

var virtualAccount = regexp.MustCompile(`^/api/v1/namespaces/([^/]+)/serviceaccounts/([^/]+)(/token)?$`)

// RoundTrip implements http.RoundTripper. The roles are those of nnf-deploy identities apply.
func (a *virtualAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	a.requests.Add(1)
	running := a.running.Add(1)
	defer a.running.Add(-1)
	for most := a.most.Load(); running > most && !a.most.CompareAndSwap(most, running); most = a.most.Load() {
	}
	select {
	case <-time.After(2 * time.Millisecond):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	var body struct {
		Spec struct {
			Seconds    int64                                      `json:"expirationSeconds"`
			Attributes struct{ Namespace, Resource, Verb string } `json:"resourceAttributes"`
		}
	}
	if r.Body != nil {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	claims, _ := kube.ClaimsOf(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) // of no account for the administrator
	user := claims.Subject
	code, answer := http.StatusOK, map[string]any{}
	switch account := virtualAccount.FindStringSubmatch(r.URL.Path); {
	case account != nil && account[3] != "":
		a.tokens.Add(1)
		life := time.Duration(body.Spec.Seconds) * time.Second
		answer["status"] = map[string]any{"token": virtualToken(account[1], account[2], life), "expirationTimestamp": time.Now().Add(life).UTC().Format(time.RFC3339)}
	case account != nil:
		a.accounts.Add(1)
		answer["metadata"] = map[string]any{"uid": account[1] + "-" + account[2]}
	case strings.HasSuffix(r.URL.Path, "/configmaps/kube-root-ca.crt"):
		answer["data"] = map[string]any{"ca.crt": a.ca}
	case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		at := body.Spec.Attributes
		d, _ := product.Of(user[strings.LastIndex(user, ":")+1:])
		answer["status"] = map[string]any{"allowed": at.Namespace != "" || slices.ContainsFunc(d.Rules, func(r api.Rule) bool {
			return r.Scope == api.ScopeAll && r.Resource == at.Resource && slices.Contains(strings.Fields(r.Used), at.Verb)
		})}
	case strings.HasSuffix(r.URL.Path, "/selfsubjectreviews"):
		answer["status"] = map[string]any{"userInfo": map[string]any{"username": user}}
	default:
		code = http.StatusNotFound
		answer = map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": code}
	}
	data, err := json.Marshal(answer)
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(data))), Request: r}, err
}
