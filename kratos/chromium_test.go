package main

import (
	"context"
	"os"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/preload"
	"github.com/chromedp/chromedp"
)

// chromium is driven by chromedp, over the Chrome DevTools Protocol.
type chromium struct {
	ctx  context.Context
	stop context.CancelFunc
}

func startChromium(ctx context.Context, dark bool) (browser, error) {
	path, err := lookPath("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU)
	if dark {
		options = append(options, chromedp.Flag("blink-settings", "preferredColorScheme=0"))
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which does not work for root
	}
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	ctx, _ = chromedp.NewContext(ctx) // ends with the allocator's
	if err := chromedp.Do(ctx); err != nil {
		stop()
		return nil, err
	}
	return &chromium{ctx, stop}, nil
}

func (c *chromium) close() {
	chromedp.Cancel(c.ctx) // waits for its end
	c.stop()
}

func (c *chromium) newTab() (tab, error) {
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	return &chromiumTab{ctx, cancel}, chromedp.Do(ctx)
}

type chromiumTab struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func (t *chromiumTab) do(steps ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(t.ctx, commandTimeout)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

func (t *chromiumTab) open(url string) error { return t.do(chromedp.Navigate(url)) }

func (t *chromiumTab) eval(js string) (string, error) {
	ctx, cancel := context.WithTimeout(t.ctx, commandTimeout)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](js))
}

func (t *chromiumTab) point(x, y int) error {
	return t.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, float64(x), float64(y)))
}

func (t *chromiumTab) click(x, y int, ctrl bool) error {
	modifier := chromedp.ModifierNone
	if ctrl {
		modifier = chromedp.ModifierCtrl
	}
	return t.do(chromedp.MouseClickXY(float64(x), float64(y), chromedp.ButtonModifiers(modifier)))
}

func (t *chromiumTab) press(keys string) error { return t.do(chromedp.KeyEvent(keys)) }

func (t *chromiumTab) back() error { return t.do(chromedp.NavigateBack()) }

func (t *chromiumTab) resize(width, height int) error {
	return t.do(chromedp.EmulateViewport(int64(width), int64(height)))
}

func (t *chromiumTab) screenshot() ([]byte, error) {
	return chromedp.Run(t.ctx, chromedp.CaptureScreenshot())
}

func (t *chromiumTab) other() (tab, error) {
	targets, err := chromedp.Targets(t.ctx)
	if err != nil {
		return nil, err
	}
	own := chromedp.FromContext(t.ctx)
	for _, target := range targets {
		if target.Type == "page" && target.BrowserContextID == own.BrowserContextID && target.TargetID != own.Target.TargetID {
			ctx, cancel := chromedp.NewContext(t.ctx, chromedp.WithTargetID(target.TargetID))
			return &chromiumTab{ctx, cancel}, chromedp.Do(ctx)
		}
	}
	return nil, errNoTab
}

func (t *chromiumTab) close() { t.cancel() }

// preloads returns a func that returns what Chromium has said by then of u's prefetches and prerenders.
func preloads(u *user) (said func() string) {
	u.t.Helper()
	ctx := u.tab.(*chromiumTab).ctx
	if _, err := chromedp.Call(ctx, preload.Enable, cdp.Empty{}); err != nil {
		u.t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	add := func(status string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, status)
	}
	if err := chromedp.Listen(ctx, func(event any) {
		switch event := event.(type) {
		case *preload.EventPrefetchStatusUpdated:
			add(string(event.PrefetchStatus))
		case *preload.EventPrerenderStatusUpdated:
			add(string(event.PrerenderStatus))
		}
	}); err != nil {
		u.t.Fatal(err)
	}
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(all, " ")
	}
}
