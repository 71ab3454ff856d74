package dmapiserver

import (
	"net/http"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
)

// credentialTests: tokens, certificates and permissions that change or become invalid.
var credentialTests = map[string]func(*env){
	"token rotated late":     tokenRotatedLate,
	"token rotated in time":  tokenRotatedInTime,
	"authority changed late": authorityChangedLate,
	"permissions removed":    permissionsRemoved,
}

// useAccount creates a separate service account with the usual role for the test.
func (s *env) useAccount() *fixture.Account {
	s.t.Helper()
	return s.Account("nnf-dm-system", "nnf-dm-daemon-role", "NnfDataMovement", s.Rabbit)
}

// The new token is written before the old one expires: callers are not affected.
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

// The old token expires first: callers get UNAVAILABLE, and the log names the refused
// account.
func tokenRotatedLate(s *env) {
	account := s.useAccount()
	uid := s.startRunning()
	done := s.wait(uid)
	account.Revoke("1", account.Token())
	s.Proxy.Reset()
	s.fails(codes.Unavailable, "a request to the API server failed")
	s.awaitLog("a request could not be served", "refused the credentials of "+account.User(), s.Token)
	s.continues(done)
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
	s.fails(codes.Unavailable, "a request to the API server failed")
	s.awaitLog("a request could not be served", "certificate signed by unknown authority", s.API.Cert)
	s.continues(done)
	s.Ends(uid, "Success")
	s.Write("ca.pem", fresh)
	s.works()
	s.ends(done)
}

// A retry does not help if a permission is missing: callers are referred to the
// administrator, and the log names the permission.
func permissionsRemoved(s *env) {
	account := s.useAccount()
	uid := s.startRunning()
	done := s.wait(uid)
	s.Must(s.Cluster.Delete(s.Context(resume), "ClusterRoleBinding", "", s.Node))
	account.Answers(account.Token(), http.StatusForbidden)
	s.Proxy.Reset()
	s.awaitLog("the watch on the data movements failed", account.User(), "may not watch")
	s.fails(codes.Internal, "the API server denied a request of the daemon")
	s.awaitLog("a request could not be served", account.User(), "may not ", "check the role and its binding")
	s.continues(done)
	s.Ends(uid, "Success")
	account.Bind("nnf-dm-daemon-role")
	s.works()
	s.ends(done)
}
