package dmapiserver

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// credentialTests: tokens, certificates and rights that change or go bad.
var credentialTests = map[string]func(*env){
	"token rotated late":     tokenRotatedLate,
	"token rotated in time":  tokenRotatedInTime,
	"authority changed late": authorityChangedLate,
	"rights removed":         rightsRemoved,
}

const (
	accounts = "nnf-dm-system"
	rbac     = "rbac.authorization.k8s.io"
)

// useAccount gives the test a service account of its own with the usual role,
// so that what happens to it disturbs nobody else.
func (s *env) useAccount() string {
	s.t.Helper()
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": s.Node, "namespace": accounts}})
	s.bind()
	token := s.newToken("1")
	s.answers(token, http.StatusOK)
	s.Token = s.Write("token", token)
	return "system:serviceaccount:" + accounts + ":" + s.Node
}

func (s *env) bind() {
	s.t.Helper()
	s.Apply(lab.Object{
		"apiVersion": rbac + "/v1", "kind": "ClusterRoleBinding", "metadata": map[string]any{"name": s.Node},
		"roleRef":  map[string]any{"apiGroup": rbac, "kind": "ClusterRole", "name": "nnf-dm-daemon-role"},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": s.Node, "namespace": accounts}},
	})
}

// newToken makes a secret that the control plane fills with a token, and
// returns when the server knows it too.
func (s *env) newToken(n string) []byte {
	s.t.Helper()
	name := s.Node + "-" + n
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": map[string]any{
		"name": name, "namespace": accounts, "annotations": map[string]any{"kubernetes.io/service-account.name": s.Node},
	}})
	o, err := s.Cluster.WaitFor(s.Context(resume), "Secret", accounts, name, func(o lab.Object) bool { return o.String("data", "token") != "" })
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := base64.StdEncoding.DecodeString(o.String("data", "token"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.answers(token, http.StatusOK, http.StatusForbidden)
	return token
}

// answers waits until the server answers a token's read with one of the codes:
// it remembers for some 10 s what was right before, and learns of what is new
// a moment later.
func (s *env) answers(token []byte, codes ...int) {
	s.t.Helper()
	c := s.Client(token)
	wait.Within(s.t, resume, fmt.Sprintf("an answer with one of %d", codes), func() bool {
		_, err := c.Do(s.Context(resume), http.MethodGet, lab.Path("NnfDataMovement", s.Rabbit, ""), "", nil)
		code := 0
		if status, ok := err.(*lab.StatusError); ok {
			code = status.Code
		} else if err == nil {
			code = http.StatusOK
		}
		return slices.Contains(codes, code)
	})
}

func (s *env) token() []byte {
	s.t.Helper()
	token, err := os.ReadFile(s.Token)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

func (s *env) revoke(n string, token []byte) {
	s.t.Helper()
	if err := s.Cluster.Delete(s.Context(resume), "Secret", accounts, s.Node+"-"+n); err != nil {
		s.t.Fatal(err)
	}
	s.answers(token, http.StatusUnauthorized)
}

// The new token is in the file before the old one ends: nobody notices.
func tokenRotatedInTime(s *env) {
	s.useAccount()
	old := s.token()
	s.start()
	uid := s.create()
	s.Runs(uid)
	done := s.wait(uid)
	s.Write("token", append(s.newToken("2"), '\n'))
	s.create()
	s.revoke("1", old)
	s.Proxy.Reset()
	s.create()
	s.Ends(uid, "Success")
	s.ends(done)
}

// The old token ends first: callers are told to try again, the administrator
// whose credentials are refused.
func tokenRotatedLate(s *env) {
	account := s.useAccount()
	s.start()
	uid := s.create()
	s.Runs(uid)
	done := s.wait(uid)
	s.revoke("1", s.token())
	s.Proxy.Reset()
	s.fails(codes.Unavailable, "the API server does not answer")
	s.said("a request could not be served", "refused the credentials of "+account, s.Token)
	s.goesOn(done)
	s.Ends(uid, "Success")
	s.Write("token", s.newToken("2"))
	s.works()
	s.ends(done)
}

func authorityChangedLate(s *env) {
	s.start()
	uid := s.create()
	s.Runs(uid)
	done := s.wait(uid)
	fresh, err := s.Proxy.SwapCA()
	if err != nil {
		s.t.Fatal(err)
	}
	s.fails(codes.Unavailable, "the API server does not answer")
	s.said("a request could not be served", "certificate signed by unknown authority", s.API.Cert)
	s.goesOn(done)
	s.Ends(uid, "Success")
	s.Write("ca.pem", fresh)
	s.works()
	s.ends(done)
}

// A right that is missing is nothing to try again for: callers are sent to the
// administrator, who reads which it is.
func rightsRemoved(s *env) {
	account := s.useAccount()
	s.start()
	uid := s.create()
	s.Runs(uid)
	done := s.wait(uid)
	if err := s.Cluster.Delete(s.Context(resume), "ClusterRoleBinding", "", s.Node); err != nil {
		s.t.Fatal(err)
	}
	s.answers(s.token(), http.StatusForbidden)
	s.Proxy.Reset()
	s.said("lost sight of the data movements", account, "may not watch")
	s.fails(codes.Internal, "lacks a right on the API server")
	s.said("a request could not be served", account, "may not ", "check the role and its binding")
	s.goesOn(done)
	s.Ends(uid, "Success")
	s.bind()
	s.works()
	s.ends(done)
}
