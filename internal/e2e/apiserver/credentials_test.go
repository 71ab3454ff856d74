package apiserver

import (
	"context"
	"os"
	"strings"
	"time"
)

// credentialTests: tokens and certificates that change or become invalid.
var credentialTests = map[string]func(*env){
	"token rotated in time":     tokenRotatedInTime,
	"token rotated late":        tokenRotatedLate,
	"token file unusable":       tokenFileUnusable,
	"token forged at start":     func(s *env) { badTokenAtStart(s, true) },
	"token garbage at start":    func(s *env) { badTokenAtStart(s, false) },
	"authority changed late":    authorityChangedLate,
	"authority changed in time": authorityChangedInTime,
	"authority wrong at start":  authorityWrongAtStart,
	"authority file incomplete": authorityFileUnusable,
}

func contextWithin(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// The new token is in the file before the old one expires: no request fails.
func tokenRotatedInTime(s *env) {
	account := s.useAccount()
	old, err := os.ReadFile(s.Token)
	s.Must(err)
	s.start()
	s.mounted()
	s.Write("token", append(account.NewToken("2"), '\n'))
	s.mounted()
	account.Revoke("1", old)
	s.Proxy.Reset()
	s.back(1)
	s.mounted()
	s.logged("", "back")
	if strings.Contains(logOf(s), "refused the credentials") {
		s.t.Error("the old token was used after the new one was written")
	}
}

// The old token expires first: the daemon reports which credentials are rejected, and
// continues when the new token is written.
func tokenRotatedLate(s *env) {
	account := s.useAccount()
	old, err := os.ReadFile(s.Token)
	s.Must(err)
	s.start()
	stays := s.mounted()
	account.Revoke("1", old)
	s.Proxy.Reset()
	s.awaitLog(soon, lostText, "refused the credentials of "+account.User(), s.Token)
	s.showsProblem("refused the credentials of " + account.User())
	s.hold(5 * time.Second)
	s.isMounted(stays, true)

	// An incomplete file is reported as well.
	s.Write("token", nil)
	s.awaitLog(soon, "token file cannot be read", s.Token)
	comes := s.ask()
	s.hold(3 * time.Second)
	s.Write("token", account.NewToken("2"))
	began := time.Now()
	s.back(1)
	s.t.Logf("the watch continues %.1f s after the valid token", time.Since(began).Seconds())
	s.Await(comes, "mounted")
	s.logged("", "refused the credentials", "back")
	s.onceMounted(stays)
}

func logOf(s *env) string {
	var b strings.Builder
	for _, l := range s.daemon.Log() {
		b.WriteString(l.Text)
	}
	return b.String()
}

// If the file is temporarily empty, missing, a directory or garbage, the last valid token
// stays in use, and each problem is logged once.
func tokenFileUnusable(s *env) {
	s.useAccount()
	good, err := os.ReadFile(s.Token)
	s.Must(err)
	s.start()
	s.mounted()
	back := 0
	for _, bad := range []struct {
		text string
		do   func() error
	}{
		{"is empty", func() error { return os.Truncate(s.Token, 0) }},
		{"no such file", func() error { return os.Remove(s.Token) }},
		{"not a regular file", func() error { return os.Mkdir(s.Token, 0o700) }},
		{"is not a token", func() error {
			return orFirst(os.Remove(s.Token), os.WriteFile(s.Token, []byte("\x00\x01two words"), 0o600))
		}},
	} {
		s.Must(bad.do())
		s.Proxy.Reset()
		back++
		s.back(back)
		s.mounted()
		s.awaitLog(soon, "keeping the last token", bad.text)
		if n := strings.Count(logOf(s), bad.text); n != 1 {
			s.t.Errorf("%q was logged %d times", bad.text, n)
		}
	}
	s.Write("token", good)
	s.mounted()
}

func orFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// The daemon does not exit if the server rejects the token at start, because the tool of
// the site may write it later.
func badTokenAtStart(s *env, forged bool) {
	account := s.useAccount()
	good, err := os.ReadFile(s.Token)
	s.Must(err)
	bad, who := []byte("hello"), "an unknown account"
	if forged {
		parts := strings.Split(string(good), ".")
		bad, who = []byte(parts[0]+"."+parts[1]+"."+strings.Repeat("A", len(parts[2]))), account.User()
	}
	s.Write("token", bad)
	name := s.ask()
	s.launch()
	s.awaitLog(soon, lostText, "refused the credentials of "+who, s.Token)
	s.showsProblem("refused the credentials")
	s.hold(6 * time.Second)
	s.notReady()
	s.Write("token", good)
	s.ready(resume)
	s.Await(name, "mounted")
	s.back(1)
	s.logged("refused the credentials", "back")
}

// The server has a certificate of a CA that is not in our file.
func authorityChangedLate(s *env) {
	s.start()
	stays := s.mounted()
	s.Proxy.ClearRequests()
	fresh, err := s.Proxy.SwapCA()
	s.Must(err)
	s.awaitLog(soon, lostText, "certificate signed by unknown authority", s.API.Cert)
	s.showsProblem("certificate")
	s.hold(5 * time.Second)
	s.isMounted(stays, true)
	comes := s.ask()
	s.Write("ca.pem", fresh)
	s.back(1)
	s.Await(comes, "mounted")
	s.logged("", "certificate", "back")
}

// The file contains both CAs before the server changes.
func authorityChangedInTime(s *env) {
	s.start()
	s.mounted()
	old := s.Proxy.CA()
	s.Proxy.Refuse()
	s.lost(1)
	fresh, err := s.Proxy.SwapCA()
	s.Must(err)
	s.Write("ca.pem", append(old, fresh...))
	s.clearFaults()
	s.back(1)
	s.mounted()
	s.logged("", "back")
}

func authorityWrongAtStart(s *env) {
	fresh, err := s.Proxy.SwapCA()
	s.Must(err)
	s.launch()
	s.awaitLog(soon, lostText, "certificate signed by unknown authority", s.API.Cert)
	s.hold(4 * time.Second)
	s.notReady()
	s.Write("ca.pem", fresh)
	s.ready(resume)
	s.back(1)
	s.logged("certificate", "back")
}

// If the file is incomplete, the last valid CA stays in use.
func authorityFileUnusable(s *env) {
	s.start()
	s.mounted()
	good := s.Proxy.CA()
	s.Write("ca.pem", good[:len(good)/2])
	s.Proxy.Reset()
	s.back(1)
	s.mounted()
	s.awaitLog(soon, "the CA file cannot be used", s.API.Cert)
	s.Write("ca.pem", good)
	s.Proxy.Reset()
	s.back(2)
	s.logged("", "back", "", "back")
}
