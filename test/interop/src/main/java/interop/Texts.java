package interop;

import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;

/** Large texts, and what tells them apart. */
public final class Texts {
	private Texts() {
	}

	/** A text of so many bytes in UTF-8, different for each seed: characters of one to four bytes, quotes and backslashes. */
	public static String make(int bytes, int seed) {
		String piece = "€uro \"" + seed + "\" \\ ü漢字汉语日本語テキスト漢字汉语 \uD83D\uDE00 " + Integer.toHexString(seed * 0x9E3779B9) + "\n";
		int size = piece.getBytes(StandardCharsets.UTF_8).length;
		StringBuilder text = new StringBuilder(bytes / 2);
		int made = 0;
		while (made + size <= bytes) {
			text.append(piece);
			made += size;
		}
		text.append("x".repeat(bytes - made));
		return text.toString();
	}

	/** Bytes of a text in UTF-8; 0 for null. */
	public static long bytes(String text) {
		return text == null ? 0 : text.getBytes(StandardCharsets.UTF_8).length;
	}

	/** A checksum of a text; 0 for null. */
	public static long sum(String text) {
		if (text == null) {
			return 0;
		}
		CRC32 crc = new CRC32();
		crc.update(text.getBytes(StandardCharsets.UTF_8));
		return crc.getValue();
	}
}
