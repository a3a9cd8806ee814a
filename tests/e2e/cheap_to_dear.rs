//! A route with a cheap and a paid source, in front of a hundred sites of which thirty refuse the cheap one.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use exitgate_testnet::dns::Answer;
use exitgate_testnet::upstream::{self, OwnProxy, Spoken};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::{Gateway, run, until};
use crate::own_exits::{Bed, json, line, usable};

const SITES: usize = 100;
/// The first sites refuse the cheap source.
const REFUSING: usize = 30;
const ROUNDS: usize = 40;
/// How many times the scraper requests a page until it gives up.
const TRIES: usize = 3;
const ESCALATE_FOR: Duration = Duration::from_secs(40);

/// A web server for all sites. While `refuses` is true, the first sites answer 403 to the cheap addresses.
struct Shops {
    at: SocketAddr,
    refuses: AtomicBool,
    cheap: HashSet<IpAddr>,
}

impl Shops {
    async fn start(ip: Ipv4Addr, cheap: HashSet<IpAddr>) -> Arc<Self> {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let shops = Arc::new(Self { at, refuses: AtomicBool::new(true), cheap });
        let served = shops.clone();
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let shops = served.clone();
                tokio::spawn(async move { shops.serve(stream, from.ip()).await });
            }
        });
        shops
    }

    async fn serve(&self, mut stream: TcpStream, from: IpAddr) {
        let Some(head) = head(&mut stream).await else { return };
        assert!(!head.to_ascii_lowercase().contains("x-exitgate"), "the report stays here: {head}");
        let host = head.lines().find_map(|line| line.strip_prefix("Host: site")).unwrap_or_default();
        let number: usize = host.split('.').next().unwrap_or_default().parse().unwrap_or(SITES);
        let is_refused = number < REFUSING && self.refuses.load(Ordering::Relaxed) && self.cheap.contains(&from);
        let status = if is_refused { "403 Forbidden" } else { "200 OK" };
        let body = from.to_string();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    fn url(&self, site: usize) -> String {
        format!("http://site{site}.test:{}/", self.at.port())
    }
}

/// Reads the head of a request or an answer.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A scraper that opens a connection for each request. It reports a refusal with its next request to the same site, or,
/// at every other site, at exit.gate.
struct Scraper {
    proxy: SocketAddr,
    shops: Arc<Shops>,
}

/// What became of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Cheap,
    Dear,
    Lost,
}

impl Scraper {
    /// Returns the page, and how many requests were refused.
    async fn page(&self, site: usize) -> (Page, usize) {
        let mut report = None;
        for refused in 0..TRIES {
            let (status, exit) = self.get(site, report.take()).await;
            if status == 200 {
                return (if exit.starts_with("dear:") { Page::Dear } else { Page::Cheap }, refused);
            }
            if status != 403 {
                return (Page::Lost, refused + 1);
            }
            match site % 2 {
                0 => report = Some(format!("X-Exitgate-Report: banned; exit={exit}\r\n")),
                _ => self.report_at_the_gateway(site, &exit).await,
            }
        }
        (Page::Lost, TRIES)
    }

    async fn get(&self, site: usize, field: Option<String>) -> (u16, String) {
        let url = self.shops.url(site);
        let host = url.strip_prefix("http://").unwrap().trim_end_matches('/');
        let field = field.unwrap_or_default();
        self.send(&format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{field}Connection: close\r\n\r\n")).await
    }

    async fn report_at_the_gateway(&self, site: usize, exit: &str) {
        let body = format!("{{\"site\": \"site{site}.test\", \"exit\": \"{exit}\", \"outcome\": \"banned\"}}");
        let length = body.len();
        let (status, _) = self
            .send(&format!(
                "POST http://exit.gate/report HTTP/1.1\r\nHost: exit.gate\r\nX-Exitgate: 1\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        assert_eq!(status, 200, "{body}");
    }

    /// Returns the status of the answer, and the exit that it names.
    async fn send(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut stream).await.unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let exit = head.lines().find_map(|line| line.strip_prefix("X-Exitgate-Exit: ")).unwrap_or_default();
        (status, exit.to_owned())
    }
}

/// What a scraper got at all sites together.
#[derive(Debug, Default)]
struct Figures {
    pages: usize,
    cheap: usize,
    dear: usize,
    lost: usize,
    refused: usize,
}

impl Figures {
    fn paid_share(&self) -> f64 {
        self.dear as f64 / self.pages as f64
    }
}

/// Requests each site `rounds` times, from eight connections at the same time.
async fn scrape(scraper: &Arc<Scraper>, rounds: usize) -> Figures {
    let (next, figures) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Figures::default())));
    let workers = (0..8).map(|_| {
        let (scraper, next, figures) = (scraper.clone(), next.clone(), figures.clone());
        tokio::spawn(async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= rounds * SITES {
                    return;
                }
                let (page, refused) = scraper.page(at % SITES).await;
                let mut all = figures.lock().unwrap();
                all.pages += 1;
                all.refused += refused;
                match page {
                    Page::Cheap => all.cheap += 1,
                    Page::Dear => all.dear += 1,
                    Page::Lost => all.lost += 1,
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    Arc::into_inner(figures).unwrap().into_inner().unwrap()
}

struct World {
    bed: Bed,
    shops: Arc<Shops>,
    gateway: Gateway,
    scraper: Arc<Scraper>,
    proxies: Vec<OwnProxy>,
}

async fn world() -> World {
    let bed = Bed::start().await;
    let (mut proxies, mut cheap, mut lists) = (Vec::new(), HashSet::new(), [String::new(), String::new()]);
    for number in 1..=16 {
        let proxy = bed.proxy(Spoken::Http, "US", number).await;
        let is_dear = number > 12;
        if !is_dear {
            cheap.insert(upstream::address_in(&bed.sandbox, "US", number).into());
        }
        lists[usize::from(is_dear)] += &line("http", &proxy);
        proxies.push(proxy);
    }
    let shops = Shops::start(bed.sandbox.ip(73, 1), cheap).await;
    for site in 0..SITES {
        bed.dns.set(&format!("site{site}.test"), Answer::ip(shops.at.ip()));
    }
    let [cheap, dear] = [("cheap", &lists[0]), ("dear", &lists[1])].map(|(name, list)| bed.file(name, list));
    let gateway = bed.launch(&format!(
        "gateway.escalate_for = \"{escalate}s\"\n\
         [[sources.upstream]]\nname = \"cheap\"\nfile = {cheap:?}\n\
         [[sources.upstream]]\nname = \"dear\"\nfile = {dear:?}\n\
         [[routes]]\nname = \"shop\"\nselector = \"us\"\nsource = [\"cheap\", \"dear\"]\nfallback = true\nport = 20000\n",
        escalate = ESCALATE_FOR.as_secs(),
    ));
    let got = until(|| gateway.api("/exits?limit=100"), |got| usable(got) == 16).await;
    assert!(usable(&got) == 16, "{}\n{}", got.body, gateway.log());
    let scraper = Arc::new(Scraper { proxy: gateway.port(20000), shops: shops.clone() });
    World { bed, shops, gateway, scraper, proxies }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paid_source_serves_only_the_sites_that_refuse_the_cheap_one() {
    let World { bed, shops, gateway, scraper, proxies: _proxies } = world().await;
    let began = Instant::now();
    let figures = scrape(&scraper, ROUNDS).await;
    let took = began.elapsed();
    let success = (figures.cheap + figures.dear) as f64 / figures.pages as f64;
    let (paid, banned) = (figures.paid_share(), REFUSING as f64 / SITES as f64);
    let first_try = 1.0 - figures.refused as f64 / (figures.pages + figures.refused) as f64;
    eprintln!(
        "{} pages in {:.1} s: {:.2} % loaded ({:.2} % of all requests were not refused), {:.2} % by the paid source, \
         {:.0} % of the sites refuse the cheap one; {figures:?}",
        figures.pages,
        took.as_secs_f64(),
        success * 100.0,
        first_try * 100.0,
        paid * 100.0,
        banned * 100.0
    );
    assert!(success >= 0.99 && first_try >= 0.97, "{figures:?}\n{}", gateway.log());
    assert!((paid - banned).abs() <= 0.05 * banned, "{paid} {figures:?}");

    // What went where is counted and shown.
    let route = json(&gateway.api("/proxies/shop").await);
    let dear = &route["live"]["by_source"]["dear"];
    assert_eq!(dear["requests"], figures.dear, "{route}");
    assert!(dear["bytes_down"].as_u64() > Some(0), "{route}");
    let sources = json(&gateway.api("/sources").await);
    assert_eq!(sources["carried"]["dear"], *dear, "{sources}");
    let metrics = gateway.api("/metrics").await.body;
    for series in [
        "exitgate_route_source_requests_total{route=\"shop\",source=\"dear\"}",
        "exitgate_route_source_bytes_total{route=\"shop\",source=\"dear\",way=\"down\"}",
        "exitgate_escalations_total{route=\"shop\",reason=\"begun_banned\"}",
    ] {
        assert!(metrics.contains(series), "{series}\n{metrics}");
    }
    let explained = json(&gateway.api("/explain?username=shop&host=site0.test").await);
    assert_eq!(explained["escalation"]["source"], "dear", "{explained}");
    let free = json(&gateway.api("/explain?username=shop&host=site99.test").await);
    assert!(free["escalation"].is_null(), "{free}");
    let api = format!("EXITGATE_URL=http://{}:8080", bed.sandbox.ip(90, 1));
    let exitgate = env!("CARGO_BIN_EXE_exitgate");
    let why = run("env", &[&api, exitgate, "why", "shop", "--host", "site0.test"]).await;
    let why = String::from_utf8_lossy(&why.stdout).into_owned() + &String::from_utf8_lossy(&why.stderr);
    assert!(why.contains("begins with dear until "), "{why}");

    // The sites accept the cheap source again. After `escalate_for`, it serves everything.
    shops.refuses.store(false, Ordering::Relaxed);
    tokio::time::sleep(ESCALATE_FOR).await;
    let after = scrape(&scraper, 2).await;
    eprintln!("after escalate_for: {after:?}");
    assert_eq!((after.cheap, after.lost), (2 * SITES, 0), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cheap_source_comes_back_early_where_it_is_accepted_again() {
    let World { bed: _bed, shops, gateway, scraper, proxies: _proxies } = world().await;
    let began = Instant::now();
    while scraper.page(0).await.0 != Page::Dear {
        assert!(began.elapsed() < ESCALATE_FOR, "{}", gateway.log());
    }
    shops.refuses.store(false, Ordering::Relaxed);
    let (mut requests, lifted) = (0, Instant::now());
    let mut row = 0;
    while row < 5 {
        let (page, refused) = scraper.page(0).await;
        assert_eq!(refused, 0);
        row = if page == Page::Cheap { row + 1 } else { 0 };
        requests += 1;
        assert!(lifted.elapsed() < ESCALATE_FOR, "{requests} requests\n{}", gateway.log());
    }
    let took = lifted.elapsed();
    eprintln!("the cheap source was back after {requests} requests and {:.1} s", took.as_secs_f64());
    assert!(took < ESCALATE_FOR / 2, "{took:?}");
    assert!(gateway.api("/metrics").await.body.contains("reason=\"returned\""));

    // A report that cannot be understood is refused, and says what to do.
    let (status, _) = scraper.get(0, Some("X-Exitgate-Report: banned\r\n".to_owned())).await;
    assert_eq!(status, 400, "a new connection has no previous request");
}
