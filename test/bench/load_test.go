package bench

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// loadVariable is the environment variable that makes this program a load generator. It is a
// process of its own, so that the processor time of the benchmark is that of the server alone.
const loadVariable = "COUNTERSIGN_BENCH_LOAD"

// order is one command to the load generator, as one line of JSON. Only the first one has CA and
// Bodies.
type order struct {
	CA     []byte   `json:",omitempty"`
	Bodies [][]byte `json:",omitempty"`
	// URL receives the requests of Clients clients for the time For. Each client has one request in
	// flight. With HTTP1 each has its own connection. Otherwise all use one, like those of the API
	// server.
	URL     string
	Clients int
	For     time.Duration
	HTTP1   bool
}

// result is the response to an order.
type result struct {
	Requests int64
	Took     time.Duration
	Error    string `json:",omitempty"`
}

// generateLoad executes orders until in ends.
func generateLoad(in io.Reader, out io.Writer) error {
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	var bodies [][]byte
	clients := map[bool]*http.Client{}
	for {
		var o order
		if err := decoder.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if o.CA != nil {
			bodies = o.Bodies
			for _, http1 := range []bool{false, true} {
				pool := x509.NewCertPool()
				pool.AppendCertsFromPEM(o.CA)
				clients[http1] = &http.Client{Transport: &http.Transport{
					TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
					ForceAttemptHTTP2: !http1, MaxIdleConnsPerHost: 64,
				}}
			}
		}
		if err := encoder.Encode(execute(clients[o.HTTP1], bodies, o)); err != nil {
			return err
		}
	}
}

func execute(c *http.Client, bodies [][]byte, o order) result {
	var wg sync.WaitGroup
	var sent atomic.Int64
	var failed atomic.Pointer[string]
	begin := time.Now()
	for range o.Clients {
		wg.Go(func() {
			for time.Since(begin) < o.For && failed.Load() == nil {
				body := bodies[int(sent.Add(1))%len(bodies)]
				if err := send(c, o.URL, body); err != nil {
					text := err.Error()
					failed.Store(&text)
				}
			}
		})
	}
	wg.Wait()
	r := result{Requests: sent.Load(), Took: time.Since(begin)}
	if text := failed.Load(); text != nil {
		r.Error = *text
	}
	return r
}

func send(c *http.Client, url string, body []byte) error {
	resp, err := c.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(`"allowed":true`)) {
		return fmt.Errorf("%s: got response %s: %s, want it allowed", url, resp.Status, text)
	}
	return nil
}

// generator is a running load generator.
type generator struct {
	encoder *json.Encoder
	decoder *json.Decoder
}

// newGenerator starts a load generator. It ends with the benchmark.
func newGenerator(tb testing.TB, ca []byte, bodies [][]byte) *generator {
	tb.Helper()
	self, err := os.Executable()
	check(tb, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), loadVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(tb, err)
	out, err := cmd.StdoutPipe()
	check(tb, err)
	check(tb, cmd.Start())
	tb.Cleanup(func() {
		check(tb, in.Close())
		check(tb, cmd.Wait())
	})
	g := &generator{encoder: json.NewEncoder(in), decoder: json.NewDecoder(out)}
	g.do(tb, order{CA: ca, Bodies: bodies})
	return g
}

func (g *generator) do(tb testing.TB, o order) result {
	tb.Helper()
	check(tb, g.encoder.Encode(o))
	var r result
	check(tb, g.decoder.Decode(&r))
	if r.Error != "" {
		tb.Fatal(r.Error)
	}
	return r
}
