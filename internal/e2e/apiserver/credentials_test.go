package apiserver

import (
	"context"
	"os"
	"strings"
	"time"
)

// credentialTests: tokens and certificates that change or go bad.
var credentialTests = map[string]func(*env){
	"token rotated in time":       tokenRotatedInTime,
	"token rotated late":          tokenRotatedLate,
	"token file unusable":         tokenFileUnusable,
	"token forged at start":       func(s *env) { badTokenAtStart(s, true) },
	"token garbage at start":      func(s *env) { badTokenAtStart(s, false) },
	"authority changed late":      authorityChangedLate,
	"authority changed in time":   authorityChangedInTime,
	"authority wrong at start":    authorityWrongAtStart,
	"authority file half written": authorityFileUnusable,
}

func contextWithin(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// The new token is in the file before the old one ends: no caller notices.
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
	s.story("", "back")
	if strings.Contains(logOf(s), "refused the credentials") {
		s.t.Error("the old token was used after the new one had been there")
	}
}

// The old token ends first: the daemon says whose credentials are refused, and
// continues by itself when the new token comes.
func tokenRotatedLate(s *env) {
	account := s.useAccount()
	old, err := os.ReadFile(s.Token)
	s.Must(err)
	s.start()
	stays := s.mounted()
	account.Revoke("1", old)
	s.Proxy.Reset()
	s.said(soon, lostText, "refused the credentials of "+account.User(), s.Token)
	s.showsTrouble("refused the credentials of " + account.User())
	s.hold(5 * time.Second)
	s.isMounted(stays, true)

	// Half a file on top of it is named as well.
	s.Write("token", nil)
	s.said(soon, "token file cannot be read", s.Token)
	comes := s.ask()
	s.hold(3 * time.Second)
	s.Write("token", account.NewToken("2"))
	began := time.Now()
	s.back(1)
	s.t.Logf("the watch goes on %.1f s after the good token", time.Since(began).Seconds())
	s.Await(comes, "mounted")
	s.story("", "refused the credentials", "back")
	s.onceMounted(stays)
}

func logOf(s *env) string {
	var b strings.Builder
	for _, l := range s.daemon.Log() {
		b.WriteString(l.Text)
	}
	return b.String()
}

// A file that is empty, gone, a directory or garbage for a moment: the last good
// token stays in use, and each trouble is said once.
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
		{"not an ordinary file", func() error { return os.Mkdir(s.Token, 0o700) }},
		{"does not look like a token", func() error {
			return orFirst(os.Remove(s.Token), os.WriteFile(s.Token, []byte("\x00\x01two words"), 0o600))
		}},
	} {
		s.Must(bad.do())
		s.Proxy.Reset()
		back++
		s.back(back)
		s.mounted()
		s.said(soon, "the last token stays in use", bad.text)
		if n := strings.Count(logOf(s), bad.text); n != 1 {
			s.t.Errorf("%q was said %d times", bad.text, n)
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

// A token that the server does not take at the start is no reason to end: the
// site's tool may just be late.
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
	s.said(soon, lostText, "refused the credentials of "+who, s.Token)
	s.showsTrouble("refused the credentials")
	s.hold(6 * time.Second)
	s.notReady()
	s.Write("token", good)
	s.ready(resume)
	s.Await(name, "mounted")
	s.back(1)
	s.story("refused the credentials", "back")
}

// The server has a certificate that our file does not vouch for.
func authorityChangedLate(s *env) {
	s.start()
	stays := s.mounted()
	s.Proxy.ClearRequests()
	fresh, err := s.Proxy.SwapCA()
	s.Must(err)
	s.said(soon, lostText, "certificate signed by unknown authority", s.API.Cert)
	s.showsTrouble("certificate")
	s.hold(5 * time.Second)
	s.isMounted(stays, true)
	comes := s.ask()
	s.Write("ca.pem", fresh)
	s.back(1)
	s.Await(comes, "mounted")
	s.story("", "certificate", "back")
}

// The file has both authorities before the server changes.
func authorityChangedInTime(s *env) {
	s.start()
	s.mounted()
	old := s.Proxy.CA()
	s.Proxy.Refuse()
	s.lost(1)
	fresh, err := s.Proxy.SwapCA()
	s.Must(err)
	s.Write("ca.pem", append(old, fresh...))
	s.heal()
	s.back(1)
	s.mounted()
	s.story("", "back")
}

func authorityWrongAtStart(s *env) {
	fresh, err := s.Proxy.SwapCA()
	s.Must(err)
	s.launch()
	s.said(soon, lostText, "certificate signed by unknown authority", s.API.Cert)
	s.hold(4 * time.Second)
	s.notReady()
	s.Write("ca.pem", fresh)
	s.ready(resume)
	s.back(1)
	s.story("certificate", "back")
}

// Half a certificate keeps the last good one in use.
func authorityFileUnusable(s *env) {
	s.start()
	s.mounted()
	good := s.Proxy.CA()
	s.Write("ca.pem", good[:len(good)/2])
	s.Proxy.Reset()
	s.back(1)
	s.mounted()
	s.said(soon, "the CA file cannot be used", s.API.Cert)
	s.Write("ca.pem", good)
	s.Proxy.Reset()
	s.back(2)
	s.story("", "back", "", "back")
}
