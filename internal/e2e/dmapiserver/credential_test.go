package dmapiserver

import (
	"net/http"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// credentialTests: tokens, certificates and rights that change or go bad.
var credentialTests = map[string]func(*env){
	"token rotated late":     tokenRotatedLate,
	"token rotated in time":  tokenRotatedInTime,
	"authority changed late": authorityChangedLate,
	"rights removed":         rightsRemoved,
}

// useAccount gives the test a service account of its own with the usual role.
func (s *env) useAccount() *world.Account {
	s.t.Helper()
	return s.Account("nnf-dm-system", "nnf-dm-daemon-role", "NnfDataMovement", s.Rabbit)
}

// The new token is in the file before the old one ends: no caller notices.
func tokenRotatedInTime(s *env) {
	account := s.useAccount()
	old := account.Token()
	uid := s.startRunning()
	done := s.wait(uid)
	s.Write("token", append(account.NewToken("2"), '\n'))
	s.create()
	account.Revoke("1", old)
	s.Proxy.Reset()
	s.create()
	s.Ends(uid, "Success")
	s.ends(done)
}

// The old token ends first: callers are told to try again, the administrator
// whose credentials are refused.
func tokenRotatedLate(s *env) {
	account := s.useAccount()
	uid := s.startRunning()
	done := s.wait(uid)
	account.Revoke("1", account.Token())
	s.Proxy.Reset()
	s.fails(codes.Unavailable, "the API server does not answer")
	s.said("a request could not be served", "refused the credentials of "+account.User(), s.Token)
	s.goesOn(done)
	s.Ends(uid, "Success")
	s.Write("token", account.NewToken("2"))
	s.works()
	s.ends(done)
}

func authorityChangedLate(s *env) {
	uid := s.startRunning()
	done := s.wait(uid)
	fresh, err := s.Proxy.SwapCA()
	s.Must(err)
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
	uid := s.startRunning()
	done := s.wait(uid)
	s.Must(s.Cluster.Delete(s.Context(resume), "ClusterRoleBinding", "", s.Node))
	account.Answers(account.Token(), http.StatusForbidden)
	s.Proxy.Reset()
	s.said("lost sight of the data movements", account.User(), "may not watch")
	s.fails(codes.Internal, "lacks a right on the API server")
	s.said("a request could not be served", account.User(), "may not ", "check the role and its binding")
	s.goesOn(done)
	s.Ends(uid, "Success")
	account.Bind("nnf-dm-daemon-role")
	s.works()
	s.ends(done)
}
