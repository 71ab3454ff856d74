package unixsocket

func helperListen() error    { return nil }
func helperActivated() error { return nil }
func helperExhausted() error { return nil }
