//! The socket: who connects, what is read, what is written.

use std::{io, pin::pin};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::{
    Mode,
    frame::{Frame, PRELUDE, Prelude},
    state::{JAVA_FRAME, LITE_FRAME, Next, Out, Shared},
};

/// How many zeros are written at once.
const POURED: usize = 64 << 10;

/// Takes connections for as long as it is polled; they end with it.
pub(crate) async fn run(listener: UnixListener, nucleus: Shared) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                connections.spawn(serve(socket, nucleus.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(socket: UnixStream, nucleus: Shared) {
    let (number, out) = nucleus.lock().open();
    let (reader, writer) = socket.into_split();
    tokio::select! {
        () = read(reader, number, &nucleus) => {}
        _ = write(writer, out, number, &nucleus) => {}
    }
    nucleus.lock().gone(number);
}

/// Reads until the connection is to be closed.
async fn read(reader: OwnedReadHalf, number: u64, nucleus: &Shared) {
    let mode = nucleus.lock().settings.mode;
    let mut reader = BufReader::new(reader);
    loop {
        let pause = nucleus.lock().paused_until(number);
        if let Some(end) = pause {
            sleep_until(end).await;
        }
        let next = match read_frame(&mut reader, mode).await {
            Ok(Ok(frame)) => nucleus.lock().on_frame(number, &frame),
            Ok(Err(why)) => nucleus.lock().on_bad_frame(number, &why),
            Err(_) => Next::Close,
        };
        match next {
            Next::Read => {}
            // Writing ends the connection.
            Next::Drain => return std::future::pending().await,
            Next::Close => return,
        }
    }
}

/// The next frame, or what is wrong with it.
async fn read_frame(
    reader: &mut BufReader<OwnedReadHalf>,
    mode: Mode,
) -> io::Result<Result<Frame, String>> {
    let mut prelude = [0; PRELUDE];
    reader.read_exact(&mut prelude).await?;
    let prelude = match Prelude::read(prelude) {
        Ok(prelude) => prelude,
        Err(why) => return Ok(Err(why.to_string())),
    };
    let longest = match mode {
        Mode::Java => JAVA_FRAME,
        Mode::Lite => LITE_FRAME,
    };
    if prelude.total > longest {
        return Ok(Err(format!("a frame of {} bytes", prelude.total)));
    }
    let mut rest = vec![0; prelude.rest()];
    reader.read_exact(&mut rest).await?;
    Ok(Frame::read(&prelude, &rest).map_err(|why| why.to_string()))
}

/// Writes until the connection is to be closed.
async fn write(
    writer: OwnedWriteHalf,
    mut out: mpsc::Receiver<Out>,
    number: u64,
    nucleus: &Shared,
) -> io::Result<()> {
    let patience = nucleus.lock().settings.timing.full_socket;
    let mut writer = BufWriter::new(writer);
    while let Some(next) = out.recv().await {
        if matches!(next, Out::Gag) {
            writer.flush().await?;
            return std::future::pending().await;
        }
        let is_last = out.is_empty();
        let mut writing = pin!(write_one(&mut writer, next, is_last));
        let written = match timeout(patience, &mut writing).await {
            Ok(written) => written,
            Err(_) => {
                nucleus.lock().has_stopped_reading(number);
                writing.await
            }
        };
        if !written? {
            break;
        }
    }
    writer.flush().await
}

/// Says whether there may be more to write.
async fn write_one(
    writer: &mut BufWriter<OwnedWriteHalf>,
    out: Out,
    is_last: bool,
) -> io::Result<bool> {
    match out {
        Out::Bytes(bytes) => writer.write_all(&bytes).await?,
        Out::Pour(count) => pour(writer, count).await?,
        Out::Gag | Out::Close => return Ok(false),
    }
    if is_last {
        writer.flush().await?;
    }
    Ok(true)
}

async fn pour(writer: &mut BufWriter<OwnedWriteHalf>, mut count: u64) -> io::Result<()> {
    let zeros = vec![0; POURED];
    while count > 0 {
        let part = usize::try_from(count).unwrap_or(POURED).min(POURED);
        writer.write_all(&zeros[..part]).await?;
        count = count.saturating_sub(u64::try_from(part).unwrap_or(u64::MAX));
    }
    Ok(())
}
